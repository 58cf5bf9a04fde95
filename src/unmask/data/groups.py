"""Groups: what shares a source video, a recording or an identity, joined over any number of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence


class UnionFind:
    """Disjoint sets that can be joined (Tarjan, JACM 1975: path halving, and the smaller root wins)."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        self._size: dict[Hashable, int] = {}

    def find(self, item: Hashable) -> Hashable:
        """Give the root of the set that holds an item; a new item is a set of its own."""
        parent = self._parent
        if item not in parent:
            parent[item], self._size[item] = item, 1
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    def join(self, first: Hashable, second: Hashable) -> None:
        """Make one set of the two that hold these items."""
        a, b = self.find(first), self.find(second)
        if a == b:
            return
        if self._size[a] < self._size[b]:
            a, b = b, a
        self._parent[b] = a
        self._size[a] += self._size[b]


def group_samples(
    keys: Sequence[Collection[str]], content: Sequence[str | None], alike: Iterable[tuple[int, int]] = ()
) -> list[str]:
    """Join samples that share a key or their content, or are alike.

    Args:
        keys: For each sample the videos, recordings or people it was made from; at least one each.
        content: For each sample the hash of its bytes; None joins nothing.
        alike: Positions of two samples each.

    Returns:
        For each sample the name of its group: the first of all keys in it. It does not depend on the order of the
        samples, and stays when samples with later keys are added.
    """
    sets = UnionFind()
    anchors = [("key", min(names)) for names in keys]
    for anchor, names, digest in zip(anchors, keys, content, strict=True):
        for name in names:
            sets.join(anchor, ("key", name))
        if digest is not None:
            sets.join(anchor, ("content", digest))
    for first, second in alike:
        sets.join(anchors[first], anchors[second])
    names_of_root: dict[Hashable, str] = {}
    for anchor in anchors:
        root, name = sets.find(anchor), anchor[1]
        names_of_root[root] = min(names_of_root.get(root, name), name)
    return [names_of_root[sets.find(anchor)] for anchor in anchors]


def largest_group(groups: Iterable[str]) -> tuple[str, int, float]:
    """Find the largest group.

    Args:
        groups: Group of each sample, at least one sample.

    Returns:
        Its name, its number of samples, and its share of all.
    """
    counts = Counter(groups)
    group, count = counts.most_common(1)[0]
    return group, count, count / counts.total()
