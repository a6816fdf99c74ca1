"""The files in demo/data are what the script makes of their sources."""

from pathlib import Path

import pytest

from demo.derive import customer_name, main, size_changes, tool_call
from demo.recordings import DATA_FOLDER

SOURCE = Path(__file__).parents[3] / "shared" / "data"


def test_the_kept_files_are_what_the_sources_give(tmp_path: Path) -> None:
    if not SOURCE.is_dir():
        pytest.skip("The public data sets are not beside this repository.")
    assert main(["--source", str(SOURCE), "--target", str(tmp_path)]) == 0
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in DATA_FOLDER.glob("*.gz")}
    assert made.keys() == kept.keys()
    assert all(made[name] == kept[name] for name in kept)


def test_a_shell_block_is_a_tool_call_with_its_commands_as_arguments() -> None:
    assert tool_call("THOUGHT: look.\n```bash\nls -la\n```\n") == ("shell", "ls -la\n")


def test_a_plan_for_a_helper_is_a_tool_call_with_its_instruction_as_arguments() -> None:
    plan = (
        '{"next_speaker": {"answer": "WebSurfer"},'
        ' "instruction_or_question": {"answer": "Open the page."}}'
    )
    assert tool_call(plan) == ("web_surfer", "Open the page.")


@pytest.mark.parametrize(
    "output", ["", "The answer is 7.", "{}", "[]", '{"next_speaker": {"answer": "Coder"}}']
)
def test_other_answers_ask_for_no_tool(output: str) -> None:
    assert tool_call(output) == ("", "")


def test_sizes_are_kept_only_where_they_change() -> None:
    def window(start_s: int, mean: str) -> dict[str, str]:
        columns = ("input_tokens_p50", "input_tokens_p99", "output_tokens_mean")
        more = ("output_tokens_p50", "output_tokens_p99", "reason_ratio_mean")
        return {
            "model": "m-mid",
            "client_id": "2",
            "window_start_s": str(start_s),
            "input_tokens_mean": mean,
            **dict.fromkeys((*columns, *more), "1"),
        }

    rows = list(size_changes([window(0, "5"), window(600, "5"), window(1800, "6")]))
    assert [row[2:4] for row in rows] == [(0, "5"), (3, "6")]


def test_there_is_no_name_for_more_customers_than_names() -> None:
    assert len({customer_name(index) for index in range(192)}) == 192
    with pytest.raises(ValueError, match="192 customers only"):
        customer_name(192)
