"""The table of the search of settings, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.tables import fields_of

pytest.importorskip("matplotlib", reason="needs the [demo] extra")


def test_a_row_has_an_sae_with_one_setting_changed_at_a_time(
    benchmark_script: Callable[[str], Any],
) -> None:
    script, row = benchmark_script("search_table"), benchmark_script("result_rows").Row
    rows = [
        row("c", "topk-3e-3-26k", 0, "k", 32, 32.0, 0.75, 0.0004, 0.0),
        row("c", "topk-1e-3-26k", 0, "k", 32, 31.3, 0.5, 0.0, 0.0),
        row("c", "topk-3e-3-307k", 0, "k", 32, 32.6, 0.25, 0.126, 0.0),
        row("other", "topk-3e-3-77k", 0, "k", 32, 32.0, 0.125, 0.0, 0.0),
        # of two coefficients the one whose L0 is nearer
        row("c", "gated-3e-3", 0, "l1_coefficient", 2, 40.0, 0.875, 0.0, 0.0),
        row("c", "gated-3e-3", 0, "l1_coefficient", 3, 30.0, 0.625, 0.0, 0.0),
        row("c", "jumprelu-bandwidth-0.5-1e-3", 0, "l0_coefficient", 2, 32.0, 0.375, 0.0, 0.0),
        row("c", "bi_jumprelu-1e-3-26k", 0, "target_l0", 32, 17.0, 0.0625, 0.0, 0.0),
        row("c", "bi_jumprelu-1e-3-26k-rate-0.003", 0, "target_l0", 32, 32.0, 0.5625, 0.0, 0.0),
    ]
    columns, *found = fields_of(script.search_table(rows, "c"))
    assert columns == [
        *("SAE", "as compared", "learning rate 1e-3", "window of 76,800", "window of 307,200")
    ]
    by_sae = {sae: fields for sae, *fields in found}
    assert len(by_sae) == len(found) == 12
    assert by_sae["SAELens's `topk`"] == [*("0.7500", "0.5000 at 31.3", "", "0.2500, 12.6% dead")]
    assert by_sae["SAELens's `gated`"] == ["0.6250 at 30.0", "", "no window", "no window"]
    assert by_sae["SAELens's `jumprelu`"] == ["", "0.3750", "no window", "no window"]
    assert by_sae["`bi_jumprelu`"] == ["", "0.5625", "", ""]
    assert by_sae["`bi_topk`"] == [""] * 4
    head, *found = fields_of(script.rates_table(rows, {"c": "here", "other": "there"}))
    assert head == ["SAE", "here, 3e-3", "here, 1e-3", "there, 3e-3", "there, 1e-3"]
    by_sae = {sae: fields for sae, *fields in found}
    assert by_sae["SAELens's `topk`"] == ["0.7500", "0.5000 at 31.3", "", ""]
    assert by_sae["`bi_jumprelu`"] == ["", "0.5625", "", ""]
    assert "`bi_topk`" not in by_sae  # it has no run


def test_jumprelu_is_held_against_the_line_through_the_runs_of_the_comparison(
    benchmark_script: Callable[[str], Any],
) -> None:
    script, row = benchmark_script("search_table"), benchmark_script("result_rows").Row
    # on the text that is reported on R² rises by 0.1 for each doubling of L0
    compared = [
        row("c", "jumprelu", 0, "l0_coefficient", value, l0, r2, 0.0, 0.0)
        for value, l0, r2 in ((3, 16.0, 0.5), (2, 32.0, 0.6), (1, 64.0, 0.7))
    ]
    rows = [
        # what the settings of the comparison lose on validation text: 0.01
        row("c", "jumprelu-bandwidth-0.5-3e-3", 0, "l0_coefficient", 2, 32.0, 0.59, 0.0, 0.0),
        row("c", "jumprelu-bandwidth-0.1-3e-3", 0, "l0_coefficient", 2, 32.0, 0.5925, 0.0, 0.0),
        # a line in log L0: 0.65 at the geometric mean of 32 and 64
        row("c", "jumprelu-bandwidth-2-3e-3", 0, "l0_coefficient", 2, 2**5.5, 0.63, 0.25, 0.0),
        row("c", "jumprelu-tanh-3e-3", 0, "l0_coefficient", 2, 4.0, 0.25, 0.0, 0.0),
        row("c", "jumprelu-tanh-3e-3", 0, "l0_coefficient", 1, 8.0, 0.375, 0.0, 0.0),
    ]
    head, *found = fields_of(script.jumprelu_table(rows, compared, {"c": "here", "d": "there"}))
    assert head == ["setting", "here", "there"]
    assert [fields for _, *fields in found] == [
        ["", ""],
        ["+0.0025 at 32.0", ""],
        ["−0.0100 at 45.3, 25.0% dead", ""],
        ["0.3750 at 8.0", ""],  # the line does not reach that far
        ["", ""],
    ]


def test_starts_are_in_the_order_of_their_thresholds(
    benchmark_script: Callable[[str], Any],
) -> None:
    script, row = benchmark_script("search_table"), benchmark_script("result_rows").Row
    rows = [
        row("c", f"bi_jumprelu-1e-3-26k{end}", 0, "target_l0", 32, l0, r2, dead, 0.0)
        for end, l0, r2, dead in (
            ("-start-2", 30.0, 0.6, 0.0),
            ("-rate-0.003", 32.0, 0.5, 0.25),
            ("-start-1.5", 32.5, 0.7, 0.0),
        )
    ]
    head, *found = fields_of(script.starts_table(rows, {"c": "here", "d": "there"}))
    assert head == ["start", "here", "there"]
    assert [(name, here) for name, here, _ in found if here] == [
        ("default, rate 0.003", "0.5000, 25.0% dead"),
        ("threshold 1.5", "0.7000"),
        ("threshold 2", "0.6000 at 30.0"),
    ]
    assert len(found) == len(script.STARTS)
    assert not any(there for *_, there in found)
