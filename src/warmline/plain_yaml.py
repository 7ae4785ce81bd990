"""The one loader for YAML that people write, or that came with someone's folder: data alone, and in bounded time."""

from typing import Any

import yaml

_DEEPEST = 64
"""Brackets inside each other; PyYAML's look-ahead is slow in deep ones."""
_MOST_REPEATED = 10_000
"""Values that aliases may add to those that are written out. Nine lines of nine aliases each stand for a billion."""


def read_yaml(text: str | bytes, as_text: bool = False) -> Any:
    """The plain data that a text stands for, in time that grows with the text.

    Args:
        text: One document. YAML 1.1 reads `1e-4` as text; it becomes a number where a configuration's field is one.
        as_text: Whether what is not quoted stays text too, be it `123`, `no` or `~`.

    Raises:
        yaml.YAMLError: not YAML, a key that stands twice in a mapping, aliases that repeat too much or contain themselves, nesting too
            deep, a value that its tag or notation does not allow (`2024-13-01`).
    """
    try:
        loader = _TextLoader(text) if as_text else _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repetition(node)
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:  # PyYAML's constructors check little
        raise yaml.YAMLError(f"a value cannot be read ({error}); put text in quotes") from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would silently keep the last, and deep brackets."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        super().fetch_flow_collection_start(TokenClass)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"key `{key.value}` stands twice in its section, line {key.start_mark.line + 1}")
                seen.add(key.value)
        return node


class _TextLoader(_Loader):
    """Takes nothing for a number, a date or null."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML declares it


def _refuse_repetition(root: yaml.Node) -> None:
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        """Values that a node stands for, with those behind aliases as often as they are named."""
        if id(node) not in sizes:
            sizes[id(node)] = None
            below = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = [part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))]
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
        known = sizes[id(node)]
        if known is None:
            raise yaml.YAMLError(f"the alias to line {node.start_mark.line + 1} stands inside what it names")
        return known

    if size(root) > len(sizes) + _MOST_REPEATED:
        raise yaml.YAMLError(f"its aliases repeat more than {_MOST_REPEATED:,} values; write out what you mean")
