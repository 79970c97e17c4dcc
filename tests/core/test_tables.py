from rl_interp.core.tables import markdown


def test_a_table_has_a_line_for_each_row_and_no_bar_in_a_cell_ends_it():
    assert markdown(["a", "b"], [["x", 1], ["p|q", None]]) == "| a | b |\n|---|---|\n| x | 1 |\n| p\\|q | None |\n"


def test_a_table_without_rows_is_its_header():
    assert markdown(["a"], []) == "| a |\n|---|\n"
