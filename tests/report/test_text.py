"""Numbers and texts as a person writes them."""

from imgalign.report.text import duration, marked, number, signed, typeset


def test_numbers_as_a_person_writes_them():
    assert [duration(s) for s in (42, 372, 5460)] == ["42 s", "6 min", "1 h 31 min"]
    assert [number(x) for x in (0.1234, -0.337, 4.216, 55.55, 312.2)] == [
        "0.123",
        "−0.34",
        "4.22",
        "55.5",
        "312",
    ]
    assert signed(-0.112) == "−0.11"


def test_arrows_and_minuses_are_set_and_hyphens_are_left_alone():
    plain = "0.149 -> 0.140, by -0.009 (-0.026 to +0.006), held-out, step-000200, 1e-5"
    fine = "0.149 → 0.140, by −0.009 (−0.026 to +0.006), held-out, step-000200, 1e-5"
    assert typeset(plain) == fine


def test_code_in_a_text_is_marked_and_the_rest_is_escaped():
    assert marked("`a<b` & c's") == "<code>a&lt;b</code> &amp; c's"
