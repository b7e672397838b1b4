"""The style sheet and the script of a page; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
from hashlib import sha256

STYLE = (
    """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#f3f4f6;--line:#c9ced6;--dim:#545b66;
--link:#0b5cad;--warn:#8a3b00;--c0:#0072b2;--c1:#c04e00;--c2:#00795a;--c3:#a8487f;--c4:#9a6a00;
--c5:#23749f;--d1:#e6e8eb;--d2:#d0d4d9;--d3:#b9bfc6;--d4:#a1a8b1;--d5:#88909b;--d6:#6d7682;
--d7:#525b67;--rim:#fff}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8eaed;--soft:#20252b;--line:#454d57;
--dim:#a9b1bc;--link:#7db8f0;--warn:#f0a868;--c0:#56b4e9;--c1:#ff9248;--c2:#3fcf9f;--c3:#eba3cd;
--c4:#f0c04a;--c5:#9fd3f2;--d1:#2a3037;--d2:#373f48;--d3:#47515c;--d4:#586471;--d5:#6b7987;
--d6:#808f9e;--d7:#98a8b8;--rim:#14171b}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
header,nav,main,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.3rem 0 .4rem}
p,li{max-width:46rem;overflow-wrap:anywhere}
a{color:var(--link)}
.sub{color:var(--dim);margin:.2rem 0}
nav ul{list-style:none;padding:0;margin:1rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem}
.skip{position:absolute;left:-999px}.skip:focus{position:static}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
dl{display:flex;flex-wrap:wrap;gap:.6rem;margin:.8rem 0}
dl div{background:var(--soft);border-radius:.4rem;padding:.45rem .8rem;min-width:7rem}
dt{font-size:.8rem;color:var(--dim)}dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.8rem 0;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.2rem 0 .4rem}
caption span{display:inline-block;font-weight:600;position:sticky;left:0;
max-width:calc(100vw - 2.5rem)}
th,td{padding:.3rem .65rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{border-bottom:2px solid var(--dim);vertical-align:bottom}
tbody th{font-weight:600;min-width:3rem}th.s{white-space:nowrap}
td.t{min-width:15rem}thead th.n{text-align:right}
td.n{text-align:right;white-space:nowrap}
tbody tr:nth-child(even){background:var(--soft)}
thead button{all:unset;cursor:pointer;font-weight:600}
thead button:focus-visible{outline:3px solid var(--link);outline-offset:2px}
thead button::after{content:"\\a0\\2195";color:var(--dim)}
[aria-sort=ascending] button::after{content:"\\a0\\2191";color:var(--fg)}
[aria-sort=descending] button::after{content:"\\a0\\2193";color:var(--fg)}
.bar{display:inline-block;height:.6rem;background:var(--c0);margin-right:.4rem;min-width:1px}
.warn{color:var(--warn);font-weight:600}
pre{background:var(--soft);padding:.7rem .9rem;border-radius:.4rem;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.85rem}
code{font-family:ui-monospace,Menlo,Consolas,"Liberation Mono",monospace}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20.5rem),1fr));
gap:1rem;margin:.8rem 0}
figure{margin:0}figcaption{font-size:.85rem;color:var(--dim);max-width:22rem}
svg{max-width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--dim);font-family:inherit}
svg .name{fill:var(--fg);font-size:12px}
svg .mid{text-anchor:middle}svg .end{text-anchor:end}
svg .axis{stroke:var(--dim);stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.rim{fill:none;stroke:var(--rim);stroke-width:4}
.label{text-anchor:middle;font-weight:700;paint-order:stroke;stroke:var(--rim);stroke-width:3px}
svg text.label{font-size:13px;fill:var(--fg)}
.grey{fill:var(--d2)}.total{stroke:var(--fg);stroke-width:1.6}.thin{stroke-width:1}
.thick{stroke-width:7}.dot{stroke:var(--rim);stroke-width:2}
.dash1{stroke-dasharray:6 3}.dash2{stroke-dasharray:2 2.5}.dash3{stroke-dasharray:7 2.5 2 2.5}
.ring{fill:var(--bg);stroke:var(--fg);stroke-width:1}
.best{fill:none;stroke:var(--fg);stroke-width:2}
footer{color:var(--dim);font-size:.85rem;padding-bottom:2rem;margin-top:2rem}
@media print{:root{--bg:#fff;--fg:#000;--soft:#fff;--line:#bbb;--dim:#444;--link:#000;--warn:#000;
--c0:#0072b2;--c1:#c04e00;--c2:#00795a;--c3:#a8487f;--c4:#9a6a00;--c5:#23749f;--d1:#eee;--d2:#ddd;
--d3:#c8c8c8;--d4:#b0b0b0;--d5:#959595;--d6:#787878;--d7:#585858;--rim:#fff}
body{font-size:10pt}table{font-size:7.5pt}th,td{padding:.2rem .25rem}
td.n{white-space:normal}thead th{hyphens:auto;overflow-wrap:anywhere}
nav,.skip{display:none}.wide{overflow:visible}
thead button::after{content:""}h2,h3,caption{break-after:avoid}figure,tr,dl div{break-inside:avoid}
dl div{border:1px solid var(--line)}.charts{grid-template-columns:repeat(2,1fr)}
svg{width:100%}pre{border:1px solid var(--line)}}
"""
    + "".join(
        f".c{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}svg text.t{i}{{fill:var(--c{i})}}"
        for i in range(6)
    )
    + "".join(f".d{i}{{fill:var(--d{i})}}" for i in range(1, 8))
)

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.append(head.firstChild);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => {
        const cell = row.cells[i];
        return cell.dataset.v === undefined ? cell.textContent : parseFloat(cell.dataset.v);
      };
      const order = (a, b) => {
        const x = value(a), y = value(b);
        if (typeof x === "string" || typeof y === "string")
          return String(x).localeCompare(String(y));
        return (isNaN(x) ? -Infinity : x) - (isNaN(y) ? -Infinity : y);
      };
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(a, b)));
    });
  });
}
"""


def digest(text: str) -> str:
    """What a content security policy knows an inline script or style by."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
