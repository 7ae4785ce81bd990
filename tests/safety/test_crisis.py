import re

import pytest

from warmline.safety.crisis import ANYWHERE, COUNTRIES, SLOTS, fill_slots, resources, unknown_slots


@pytest.mark.parametrize(("code", "country"), [("US", "US"), ("us", "US"), ("UK", "GB"), ("gb", "GB"), ("uk", "GB")])
def test_country_codes_in_any_case(code, country):
    assert resources(code).country == country


@pytest.mark.parametrize("code", [None, "", "XX", "Germany"])
def test_elsewhere_gets_the_row_for_anywhere(code):
    assert resources(code) is ANYWHERE


def test_the_row_for_anywhere_promises_no_number():
    assert not re.search(r"\d", ANYWHERE.crisis_line + ANYWHERE.emergency_number)


def test_slots_take_the_countrys_phrases():
    assert fill_slots("Call {emergency_number}, or {crisis_line}.", "AU") == "Call 000, or Lifeline (call 13 11 14)."


def test_a_slot_is_filled_wherever_it_stands():
    assert fill_slots("{emergency_number} {emergency_number}", "GB") == "999 999"


def test_other_braces_stay():
    assert fill_slots("{name} { } {{x}} {crisis line}", "US") == "{name} { } {{x}} {crisis line}"


@pytest.mark.parametrize("row", [ANYWHERE, *COUNTRIES.values()], ids=lambda row: row.country)
def test_every_slot_can_be_filled_in_every_country(row):
    text = " ".join(f"{{{slot}}}" for slot in SLOTS)
    filled = fill_slots(text, row.country)
    assert "{" not in filled
    assert row.crisis_line in filled
    assert row.emergency_number in filled


@pytest.mark.parametrize("row", [ANYWHERE, *COUNTRIES.values()], ids=lambda row: row.country)
def test_every_row_says_whence_and_when(row):
    assert "." in row.source
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", row.written)


def test_rows_stand_under_their_own_code():
    assert all(code == row.country and re.fullmatch("[A-Z]{2}", code) for code, row in COUNTRIES.items())


def test_unknown_slots_are_named_in_order():
    assert unknown_slots("{crisis_line} {hotline} {emergency_number} {doctor_name}") == ["hotline", "doctor_name"]


def test_known_slots_are_not_unknown():
    assert unknown_slots("Call {emergency_number} or {crisis_line}.") == []
