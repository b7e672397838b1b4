"""The report: what it says is so, nothing in it can run, and it is one small file."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import zarr
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from streamgmm import GaussianMixture, StandardScaler, cli, load, rows, save, select
from streamgmm.errors import DataError, OutputError, OutputExistsError
from streamgmm.pages.charts import Chart, tick, ticks
from streamgmm.pages.markup import VOID, number, short, tag
from streamgmm.pages.style import STYLE
from tests.pages.cases import CASES, HOSTILE, blobs

MOST_BYTES = 3 << 20


class Page(HTMLParser):
    """A page as a browser takes it apart; raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attrs):
        self.tags.append((name, dict(attrs)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    def all(self, name):
        return [attrs for each, attrs in self.tags if each == name]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A page of each kind of model."""
    model, X = CASES[request.param]()
    path = tmp_path_factory.mktemp("report") / "report.html"
    model.report(path, X)
    text = path.read_text(encoding="utf-8")
    return request.param, model, X, text, Page(text)


def test_it_is_one_small_file_without_a_network(case):
    _, _, _, text, page = case
    assert len(text.encode()) < MOST_BYTES
    for _, attrs in page.tags:
        assert not {"src", "data", "action", "srcset"} & set(attrs)
        assert attrs.get("href", "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import|https?:", text)


def test_only_its_own_script_can_run(case):
    name, _, _, text, page = case
    assert len(page.all("script")) == 1
    assert len(page.scripts) == 1
    assert "hacked" not in page.scripts[0]
    for _, attrs in page.tags:
        assert not [key for key in attrs if key.startswith("on")]
    (policy,) = [m["content"] for m in page.all("meta") if "src" in m.get("content", "")]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    if name == "hostile":
        assert "window.hacked = 1" in " ".join(page.text)  # as text
        assert "\u202e" not in text
        assert "\x00" not in text
        assert "a" * 200 not in text


def test_it_can_be_read_by_ear(case):
    _, _, _, _, page = case
    kinds = [name for name, _ in page.tags]
    for landmark in ("header", "nav", "main", "footer"):
        assert kinds.count(landmark) == 1
    assert kinds.count("h1") == 1
    assert page.all("html")[0]["lang"] == "en"
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in page.all("svg"):
        assert attrs["role"] == "img"
        assert set(attrs["aria-labelledby"].split()) <= set(ids)
    assert kinds.count("table") == kinds.count("caption")
    assert all("scope" in attrs for attrs in page.all("th"))
    for attrs in page.all("section"):
        assert attrs["aria-labelledby"] in ids
    for attrs in page.all("a"):
        assert attrs["href"][1:] in ids


def test_it_says_what_is_so(case):
    name, model, X, _, page = case
    said = " ".join(" ".join(page.text).split())
    mixture = model._mixture()
    assert f"{type(model).__name__}: {mixture.n_components} component" in said
    if X is None:
        assert "draws of the model" in said
        assert "There were no rows to look at" in said
        return
    finite = np.isfinite(X).all(axis=1)
    assert f"{len(X):,} rows of {X.shape[1]} columns were read" in said
    Y = np.asarray(X)[finite]
    posterior = mixture.posterior(np.ascontiguousarray(Y, float), resp=True)
    doubtful = int(np.sum(posterior.resp.max(axis=1) < 0.8))
    assert f"doubtful rows {doubtful:,} (" in said
    least = np.flatnonzero(finite)[posterior.log_density.argmin()]
    assert f"The least likely rows row log p, nats component {least:,} " in said
    expected = {
        "hostile": "<script>window.hacked = 1</script>",
        "selected": "2 rows (0.067 %) have a gap or an infinite value",
        "streamed": "alarms",
        "many": "3 components have no weight",
        "wide": "Of 500 features these 4 separate the components most",
        "single": "One full Gaussian component describes all rows",
        "counts": "poisson",
        "centres": "KMeans",
    }
    assert expected[name] in said
    if name == "selected":
        assert "Constant: x3" in said
        assert "Equal in every row: x0, x4" in said
        assert f"BIC chooses K = {model.n_components}" in said


def test_components_are_in_the_order_of_weight(case):
    _, model, _, text, _ = case
    weights = model._mixture().weights
    table = text[text.index("Components, the heaviest first") :]
    shown = [int(k) for k in re.findall(r'<th scope="row" data-v="([\d.]+)\.0">', table)]
    order = np.argsort(-weights, kind="stable")
    assert shown[: len(order)] == order.tolist()


def test_quantiles_are_those_of_the_rows(case):
    name, model, X, text, page = case
    drawn = [each for each in page.all("svg") if each["aria-labelledby"].startswith("profile")]
    if X is None:
        assert not drawn
        assert "How the rows are spread" not in text
        return
    mixture = model._mixture()
    k, d = mixture.n_components, mixture.n_features
    assert len(drawn) == min(d, 8)
    said = " ".join(page.text)
    assert ("the 8 of 500 features that separate most" in said) == (name == "wide")
    assert ("the 8 heaviest of 500 components" in said) == (name == "many")
    table = text[text.index("<span>Median (5 % to 95 %) of the rows") :]
    rows = re.findall(r"<tr><th[^>]*>([^<]*)</th>(.*?)</tr>", table[: table.index("</table>")])
    rows = rows[1:] if rows[0][0] == "feature" else rows
    assert [len(re.findall("<td", cells)) for _, cells in rows] == [min(k, 8)] * min(d, 8)
    if name in ("single", "counts", "centres", "streamed"):
        Y = np.asarray(X, float)
        labels = model.predict(Y)
        for feature, cells in rows:
            column = int(feature[1:])
            medians = [float(v) for v in re.findall(r'data-v="([^"]*)"', cells)]
            for c, median in enumerate(medians):
                own = Y[labels == c, column]
                assert np.mean(own < median) <= 0.51
                assert np.mean(own <= median) >= 0.49


def test_without_crick_a_line_says_what_is_missing(tmp_path, monkeypatch):
    model, X = CASES["counts"]()
    monkeypatch.setitem(sys.modules, "crick", None)
    model.report(tmp_path / "report.html", X)
    page = Page((tmp_path / "report.html").read_text())
    assert "Quantiles need crick: pip install 'streamgmm[quantiles]'" in page.text
    assert not any("profile" in each["aria-labelledby"] for each in page.all("svg"))


def test_all_of_it_is_of_one_read(tmp_path):
    model, X = CASES["centres"]()
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(300, X.shape[1]))
    read = []

    class Counting(zarr.storage.WrapperStore):
        async def get(self, key, *args, **kwargs):
            read.append(key)
            return await super().get(key, *args, **kwargs)

    store = Counting(zarr.storage.LocalStore(tmp_path / "x.zarr", read_only=True))
    model.report(tmp_path / "report.html", zarr.open_array(store, mode="r"))
    chunks = [key for key in read if key.startswith("c/")]
    assert len(chunks) == len(set(chunks)) == -(-len(X) // 300)


def test_colours_have_contrast_in_both_themes():
    light, dark = (
        dict(re.findall(r"--(\w+):(#\w+)", each))
        for each in STYLE.split("@media (prefers-color")[:2]
    )

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(a, b):
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for theme in (light, dark):
        for ground in ("bg", "soft"):
            for text in ("fg", "dim", "link", "warn"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        for place in range(6):  # numbers of components, in their colour
            assert contrast(theme[f"c{place}"], theme["bg"]) >= 4.5, place


def test_same_data_same_bits(tmp_path):
    model, X = CASES["hostile"]()
    pages = []
    for threads in (1, 2):
        model.set_params(n_jobs=threads, block_size=20_000)
        path = tmp_path / "report.html"
        model.report(path, X, overwrite=True)
        pages.append(path.read_text().replace(f"n_jobs={threads}", ""))
    assert pages[0] == pages[1]


def test_outputs_that_cannot_be(tmp_path):
    X = blobs(50, 1, 2)
    model = GaussianMixture().fit(X)
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        model.report(path, X)
    assert path.read_text() == "mine"
    model.report(path, X, overwrite=True)
    with pytest.raises(OutputExistsError, match="folder"):
        model.report(tmp_path, X, overwrite=True)
    with pytest.raises(OutputError, match="there is no folder"):
        model.report(tmp_path / "none" / "report.html", "no data are looked for")
    with pytest.raises(DataError, match="every row has a gap"):
        model.report(tmp_path / "other.html", np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="3 features"):
        model.report(tmp_path / "other.html", blobs(50, 1, 3))
    with pytest.raises(NotFittedError):
        GaussianMixture().report(tmp_path / "other.html")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html"]


def test_masked_cubes_and_weights(tmp_path):
    z = blobs(600, 2, 2).reshape(20, 30, 2)
    cube = rows(z, mask=np.arange(600).reshape(20, 30) < 60)
    model = GaussianMixture(2, random_state=0).fit(cube)
    model.report(tmp_path / "cube.html", cube)
    said = (tmp_path / "cube.html").read_text()
    assert "540 rows of 2 columns were read. 60 rows are masked or left out." in said
    w = np.zeros(600)
    w[:100] = 2.5
    model.report(tmp_path / "weighed.html", z.reshape(-1, 2), sample_weight=w)
    page = Page((tmp_path / "weighed.html").read_text())
    labelled = np.bincount(model.predict(z.reshape(-1, 2))[:100], minlength=2)
    for n in labelled:
        assert number(2.5 * n) in page.text


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = blobs(900, 3, 2)
    zarr.create_array("some data.zarr", data=X, chunks=(200, 2))
    fit = ["fit", "some data.zarr", "-k", "3", "--covariance", "diag", "--seed", "4"]
    assert cli.main([*fit, "--out", "model.zarr", "-q"]) == 0
    assert cli.main(["report", "model.zarr", "some data.zarr", "--out", "r.html", "-q"]) == 0
    text = (tmp_path / "r.html").read_text()
    said = " ".join(Page(text).text)
    assert (
        "streamgmm fit 'some data.zarr' -k 3 --covariance diag --seed 4 --out model.zarr" in said
    )
    assert "streamgmm report model.zarr 'some data.zarr' --out r.html" in said
    capsys.readouterr()
    assert cli.main(["report", "model.zarr", "--out", "r.html"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "r.html").read_text() == text
    assert cli.main(["report", "model.zarr", "--out", "r.html", "--overwrite", "--json"]) == 0
    assert '"report": "r.html"' in capsys.readouterr().out
    assert cli.main(["report", "none.zarr", "--out", "x.html"]) == 2
    pipe = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0)).fit(X)
    save(pipe, "pipe.zarr")
    assert cli.main(["report", "pipe.zarr", "some data.zarr", "--out", "pipe.html", "-q"]) == 0
    assert "900 rows of 2 columns were read" in (tmp_path / "pipe.html").read_text()


def test_a_selection_is_kept_with_its_model(tmp_path):
    X = blobs(900, 3, 2)
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(200, 2))
    best = select(tmp_path / "x.zarr", (2, 3, 5), "diag", random_state=1, criterion="icl").best
    best.save(tmp_path / "model.zarr")
    again = load(tmp_path / "model.zarr")
    again.report(tmp_path / "r.html")
    said = " ".join(Page((tmp_path / "r.html").read_text()).text)
    assert f"ICL chooses K = {best.n_components}, diag" in said
    assert "-k 2,3,5 --covariance diag --criterion icl --seed 1 --out model.zarr" in said


def test_markup_is_escaped():
    assert tag("p", "<b>", title='"&') == '<p title="&quot;&amp;">&lt;b&gt;</p>'
    assert tag("p", tag("b", 1), None, [2, "&"], hidden=True, class_=None) == (
        "<p hidden><b>1</b>2&amp;</p>"
    )
    for name in HOSTILE:
        assert len(short(name)) <= 60
        assert not re.search(r"[<>\x00-\x1f]", tag("p", name)[3:-4])


@pytest.mark.parametrize(
    "span", [(0, 1), (-3, 7e9), (1e9, 1e9 + 3), (1e-9, 3e-9), (-1e300, 1e300), (5, 5), (0, 0)]
)
def test_axes_of_any_range(span):
    chart = Chart(span, span, "x" * 10_000, "<y>")
    at = ticks(*chart.x, 5)
    assert 2 <= len(at) <= 12
    slack = 1e-9 * (chart.x[1] - chart.x[0])
    assert all(chart.x[0] - slack <= each <= chart.x[1] + slack for each in at)
    texts = [tick(each, chart.x) for each in at]
    assert len(set(texts)) == len(texts)
    Page(chart.render("id", "title", "words"))


def test_a_cluster_makes_the_same_page(client, tmp_path):
    X = blobs(20_000, 3, 3)
    X[5, 1] = np.nan
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(1000, 3))
    model = GaussianMixture(3, random_state=0, block_size=100_000).fit(X[10:])
    pages = []
    for threads in (None, 1):  # the cluster that is active, and a thread of this process
        model.set_params(n_jobs=threads)
        path = tmp_path / f"{threads}.html"
        model.report(path, tmp_path / "x.zarr")
        pages.append(path.read_text().replace(" n_jobs=1,", ""))
    assert pages[0] == pages[1]
