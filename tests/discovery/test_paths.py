"""Paths: any text becomes one segment and comes back; names say their content."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead_discovery import paths
from fairlead_discovery.decisions.ops import check_path

TEXT = st.text(alphabet=st.sampled_from("a/%._:~ ü\u2028\x00\n-"), max_size=12)


@given(TEXT)
def test_any_text_is_one_segment_and_comes_back(text: str):
    """Also "", ".", "..", slashes, percent signs and control characters."""
    segment = paths.escape(text)

    check_path(f"/x/{segment}")
    assert 1 == len(segment.split("/"))
    assert text == paths.unescape(segment)


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_different_texts_are_different_segments(texts: list[str]):
    """No two services ever share a folder."""
    assert paths.escape(texts[0]) != paths.escape(texts[1])


@given(TEXT, TEXT)
def test_service_keys_come_apart_as_they_were_put_together(framework: str, name: str):
    """`a:b` with `c` is not `a` with `b:c`."""
    assert (framework, name) == paths.split_service_key(paths.service_key(framework, name))


@given(TEXT)
def test_a_members_name_tells_its_task(task: str):
    """Trust counts tasks by the names of their nodes alone."""
    assert task == paths.task_of(paths.member_name(task, b"{}"))
    assert task == paths.task_of(paths.portless_name(task, b"{}"))


def test_clocked_folders():
    """Nodes lie in service folders, or directly in `leaving` and `routes`; folders themselves are no nodes."""
    assert paths.endpoint_folder("s") == paths.clocked_folder(paths.member("s", "member_1"))
    assert paths.LEAVING == paths.clocked_folder(paths.leaving("t"))
    assert "" == paths.clocked_folder(paths.endpoint_folder("s"))
    assert "" == paths.clocked_folder(f"{paths.ENDPOINTS}/s/member_1/below")
    assert "" == paths.clocked_folder(f"{paths.AGENTS}/a")
    assert "" == paths.clocked_folder(paths.REVISION)
