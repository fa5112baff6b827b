"""The part of a notebook or script that travels with its objective."""

from __future__ import annotations

import sys
from textwrap import dedent
from types import ModuleType

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.objective.source_slice import source_needed_by


def needed(source: str, function: str = "objective") -> str:
    return source_needed_by(function, dedent(source), where="notebook.py")


def test_only_what_it_uses_travels_in_order_and_as_written() -> None:
    taken = needed("""
        import os
        import numpy as np
        import matplotlib.pyplot as plt
        from math import sqrt as root

        WIDTH = 3  # of a layer
        unused = np.zeros(10)

        @staticmethod
        def helper(value, scale=WIDTH):
            return root(value) * scale

        class Model:
            width = WIDTH
            def size(self):
                return np.prod([self.width])

        def objective(params):
            unused = 1
            return helper(params["x"]) + Model().size() + unused

        plt.plot(unused)
        print(objective({"x": 1}))
    """)
    assert taken.split("\n")[:3] == ["import numpy as np", "", "from math import sqrt as root"]
    assert "WIDTH = 3  # of a layer" in taken and "@staticmethod\ndef helper" in taken
    assert "plt" not in taken and "zeros" not in taken and "print" not in taken and "import os" not in taken
    names: dict[str, object] = {}
    exec(taken, names)
    assert names["objective"]({"x": 4}) == 2 * 3 + 3 + 1  # type: ignore[operator]


def test_a_cell_that_was_run_again_counts_once_and_changes_are_kept() -> None:
    taken = needed("""
        def objective(params): return 0
        table = {"a": 1}
        table = {"a": 2}
        table["b"] = 3
        count = 1
        count += 1
        def objective(params): return table["a"] + table["b"] + count
        objective({})
    """)
    assert taken.count("def objective") == 1 and '{"a": 1}' not in taken
    names: dict[str, object] = {}
    exec(taken, names)
    assert names["objective"]({}) == 7  # type: ignore[operator]


def test_each_import_of_a_part_of_a_package_travels() -> None:
    taken = needed("""
        import xml.dom
        import xml.sax as parser
        import xml.etree
        import xml
        import json as parser
        def objective(params): return xml.dom.Node, xml.etree, parser.dumps
    """)
    imports = [line for line in taken.split("\n") if line.startswith("import")]
    assert imports == ["import xml.dom", "import xml.etree", "import xml", "import json as parser"]


def test_changes_within_loops_and_blocks_are_kept() -> None:
    taken = needed("""
        import os
        class Settings: pass
        words, table, other = ["a", "b"], {}, {}
        for number, word in enumerate(words):
            table[word] = number
        if table:
            Settings.size, (Settings.width, _) = 3, (4, 5)
        with open(os.devnull) as table["file"]:
            del table["a"]
        for word in words:
            other[word] = print(word)
        def objective(params): return table["b"] + len(table) + Settings.size + Settings.width
        def later(): table["c"] = 9
    """)
    assert "other[word]" not in taken and "later" not in taken
    names: dict[str, object] = {}
    exec(taken, names)
    assert names["objective"]({}) == 1 + 2 + 3 + 4  # type: ignore[operator]


def test_name_that_a_loop_reads_before_it_binds_it_travels() -> None:
    taken = needed("""
        import os
        words = "a b"
        path = os.devnull
        name = "c"
        table = {}
        for words in words.split():
            table[words] = 1
        with open(path) as path:
            table[path.name] = 1
        if name:
            for name in (name, "d"):
                table[name] = 1
        def objective(params): return len(table)
    """)
    names: dict[str, object] = {}
    exec(taken, names)
    assert names["objective"]({}) == 5  # type: ignore[operator]


def test_settings_of_the_environment_and_star_imports_travel() -> None:
    taken = needed("""
        import os
        os.environ["KERAS_BACKEND"] = "numpy"
        from math import *
        def objective(params): return floor(params["x"])
    """)
    assert taken.startswith('import os\n\nos.environ["KERAS_BACKEND"] = "numpy"\n\nfrom math import *')


@pytest.mark.parametrize(
    "setting",
    [
        'os.environ.setdefault("KERAS_BACKEND", "numpy")',
        'before = os.environ.setdefault("KERAS_BACKEND", "numpy")',
        'os.environ.update({"KERAS_BACKEND": "numpy"}, OTHER="1")',
        'os.environ |= {"KERAS_BACKEND": "numpy"}',
        'if "KERAS_BACKEND" not in os.environ:\n    os.environ.update(KERAS_BACKEND="numpy")',
        'NAME = "KERAS_BACKEND"\n\nos.environ[NAME] = "numpy"',
        'SETTINGS = dict(KERAS_BACKEND="numpy")\n\nos.environ.update(SETTINGS)',
        'del os.environ["KERAS_BACKEND"]',
        'os.environ.pop("KERAS_BACKEND", None)',
    ],
)
def test_every_way_to_set_the_environment_travels(setting: str) -> None:
    source = f"import os\n\n{setting}\n\nimport math\n\ndef objective(params): return math.sqrt(params['x'])\n"
    assert needed(source) == source


def test_reading_the_environment_and_setting_it_later_do_not_travel() -> None:
    taken = needed("""
        import os
        print(os.environ.get("HOME"), os.environ["HOME"])
        def later(): os.environ["HOME"] = "/"
        def objective(params): return 0
    """)
    assert taken == "def objective(params): return 0\n"


def test_imports_from_the_future_travel_and_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = needed("""
        from dataclasses import dataclass
        def objective(params: Params) -> Result:
            return Result(params["x"]).loss
        class Params: pass
        @dataclass
        class Result:
            loss: float
        from __future__ import annotations
    """)
    assert taken.startswith("from __future__ import annotations\n")
    names: dict[str, object] = {"__name__": "notebook"}
    monkeypatch.setitem(sys.modules, "notebook", ModuleType("notebook"))  # as dataclasses look for it
    exec(compile(taken, "notebook.py", "exec", dont_inherit=True), names)
    assert names["objective"]({"x": 3}) == 3  # type: ignore[operator]


def test_calls_that_may_change_what_travels_are_named(caplog: pytest.LogCaptureFixture) -> None:
    taken = needed("""
        import random
        import numpy as np
        class Study: scale = 1
        LAYERS = [1, 2]
        LAYERS.append(0)  # of a value that is replaced
        LAYERS = [8]
        CONFIG = {"epochs": 1, "sizes": []}
        unused = []
        for size in (16, 32):
            LAYERS.append(size)
        CONFIG.update(epochs=50)
        CONFIG.update(epochs=50)
        CONFIG["sizes"].append(7)
        unused.append(3)
        random.seed(0)
        np.random.seed(0)
        print(CONFIG.get("epochs"))
        CONFIG.keys()
        study = Study()
        study.enqueue({"x": 1})
        LAYERS += [64]
        def objective(params): return study.scale * sum(LAYERS) * CONFIG["epochs"] + np.prod([random.random()])
        if __name__ == "__main__":
            CONFIG.clear()
    """)
    assert "append" not in taken and "update" not in taken and "LAYERS += [64]" in taken
    assert [message.partition(", which")[0] for message in caplog.messages] == [
        "submit(): LAYERS.append(size) is not sent, and may change LAYERS",
        "submit(): CONFIG.update(epochs=50) is not sent, and may change CONFIG",
        "submit(): CONFIG['sizes'].append(7) is not sent, and may change CONFIG",
    ]


def test_statements_that_share_a_line_and_lambdas() -> None:
    names: dict[str, object] = {}
    exec(needed("a = 1; b = 2; objective = lambda params: a + b"), names)
    assert names["objective"]({}) == 3  # type: ignore[operator]


SECTIONS = """import math
# of@a layer
SCALE = 2
TEXT = "a@b"
def helper(value):
    # before@the last line
    return value * SCALE
def objective(params):
    x = helper(params["x"])
    return x + len(TEXT)
"""


@pytest.mark.parametrize("character", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\f\n"])
def test_functions_travel_whole_whatever_separates_lines_or_sections(character: str, end: str) -> None:
    first, rest = SECTIONS.replace("@", character).split("\n", 1)
    source = first + end + (rest if "\f" in end else rest.replace("\n", end))
    names: dict[str, object] = {}

    exec(source_needed_by("objective", source, where="notebook.py"), names)

    assert names["objective"]({"x": 4}) == 8 + 3  # type: ignore[operator]


def test_what_stands_below_the_main_guard_does_not_travel() -> None:
    source = """
        def objective(params):
            return scale * params["x"] + missing(1)

        if __name__ == "__main__":
            scale = 3
    """
    with pytest.raises(InvalidInput) as caught:
        needed(source)
    messages = sorted(str(problem) for problem in caught.value.problems)
    assert messages[0].startswith("objective: objective needs missing, which no statement of notebook.py binds.")
    assert "outside of `if __name__ == '__main__':`" in messages[1]


def test_a_syntax_error_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"notebook\.py has a syntax error in line 2"):
        source_needed_by("objective", "x = 1\ndef objective(:\n", where="notebook.py")
