"What a user sees of every command is what it was: `tests/golden/`, made by `python tests/golden.py`."

import golden
import pytest


@pytest.fixture(scope="module")
def lab(tiny_quickstart, tmp_path_factory) -> golden.Lab:
    return golden.Lab(tmp_path_factory.mktemp("golden"), tiny_quickstart)


@pytest.mark.parametrize("name", golden.DOCUMENTS)
def test_as_it_was(lab, name):
    found = golden.differences(name, golden.stored(name), golden.make(lab, name))
    more = f"\n... and {len(found) - 5} more" if len(found) > 5 else ""
    again = f"meant? `python tests/golden.py {name}`, and look at the diff"
    assert not found, f"{name}: {len(found)} differences; {again}\n" + "\n".join(found[:5]) + more


def test_every_document_is_made():
    assert {path.stem for path in golden.GOLDEN.glob("*.json")} == set(golden.DOCUMENTS)
    assert sum(path.stat().st_size for path in golden.GOLDEN.glob("*.json")) <= 150 * 1024
