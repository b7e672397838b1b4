"""A Zarr store that tries again what fails for a moment, as in object stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from streamgmm.places import retry

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

R = TypeVar("R")


class RetryingStore(WrapperStore[Store]):
    """A store whose requests are repeated, with a backoff, where that may help.

    All of them may be repeated: each writes, or deletes, the same bytes at the same place.
    """

    def with_read_only(self, read_only: bool = False) -> RetryingStore:
        """Give one that may be written, or not."""
        return RetryingStore(self._store.with_read_only(read_only))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Get a value or a part of one."""
        return await _again(lambda: self._store.get(key, prototype, byte_range), key)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Get parts of values."""
        wanted = list(key_ranges)
        return await _again(lambda: self._store.get_partial_values(prototype, wanted), "parts")

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return await _again(lambda: self._store.exists(key), key)

    async def is_empty(self, prefix: str) -> bool:
        """Whether there is nothing below a prefix."""
        return await _again(lambda: self._store.is_empty(prefix), prefix)

    async def set(self, key: str, value: Buffer) -> None:
        """Put a value."""
        await _again(lambda: self._store.set(key, value), key)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put a value where there is none."""
        await _again(lambda: self._store.set_if_not_exists(key, value), key)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await asyncio.gather(*(self.set(key, value) for key, value in values))

    async def delete(self, key: str) -> None:
        """Remove a value."""
        await _again(lambda: self._store.delete(key), key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all that is below a prefix."""
        await _again(lambda: self._store.delete_dir(prefix), prefix)

    async def getsize(self, key: str) -> int:
        """Bytes of a value."""
        return await _again(lambda: self._store.getsize(key), key)

    async def list(self) -> AsyncIterator[str]:
        """List all keys."""
        for name in await _again(lambda: _all(self._store.list()), "the list"):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """List the keys below a prefix."""
        for name in await _again(lambda: _all(self._store.list_prefix(prefix)), prefix):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List the names at a prefix."""
        for name in await _again(lambda: _all(self._store.list_dir(prefix)), prefix):
            yield name


def retrying(store: Any) -> Any:
    """Wrap a store that is far away; one in memory, or wrapped already, is given as it is."""
    if isinstance(store, (MemoryStore, LocalStore, RetryingStore)):
        return store
    return RetryingStore(store)


def beneath(store: Any) -> Any:
    """Give the store that repeats nothing."""
    return store._store if isinstance(store, RetryingStore) else store


async def _again(ask: Callable[[], Awaitable[R]], what: str) -> R:
    for wait in retry.RETRY_SECONDS:
        try:
            return await ask()
        except Exception as error:
            if not retry.is_transient(error):
                raise
            retry.log.warning("'%s': %s; trying again in %g s", what, error, wait)
        await asyncio.sleep(wait)
    return await ask()


async def _all(names: AsyncIterator[str]) -> tuple[str, ...]:
    return tuple([name async for name in names])
