"""Numbers and texts as a person writes them."""

from imgalign.report.text import change, duration, marked, signed, typeset


def test_durations_are_in_the_units_a_person_uses_and_stay_on_one_line():
    said = [duration(seconds) for seconds in (42, 372, 5460)]
    assert [words.replace("\N{NO-BREAK SPACE}", "_") for words in said] == [
        "42_s",
        "6_min",
        "1_h_31_min",
    ]


def test_a_change_has_three_significant_digits_and_as_many_on_both_sides():
    assert change(0.149, 0.1404) == "0.149 → 0.140"
    assert change(-0.353, 0.0481) == "−0.35 → 0.05"
    assert change(4.216, 55.55) == "4.2 → 55.5"
    assert change(312.2, 9.0) == "312 → 9"
    assert change(0.0, 0.0) == "0.00 → 0.00"


def test_a_difference_has_its_sign():
    assert signed(-0.112) == "−0.11"
    assert signed(0.112) == "+0.11"


def test_arrows_and_minuses_are_set_and_hyphens_are_left_alone():
    plain = "0.149 -> 0.140, by -0.009 (-0.026 to +0.006), held-out, step-000200, 1e-5"
    fine = "0.149 → 0.140, by −0.009 (−0.026 to +0.006), held-out, step-000200, 1e-5"
    assert typeset(plain) == fine


def test_code_in_a_text_is_marked_and_the_rest_is_escaped():
    assert marked("`a<b` & c's") == "<code>a&lt;b</code> &amp; c's"
