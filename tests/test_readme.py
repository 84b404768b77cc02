from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = list(find_examples(README))


def test_the_readme_has_examples_to_run() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_readme_says_what_its_code_prints(
    example: CodeExample, eval_example: EvalExample
) -> None:
    eval_example.run_print_check(example)
