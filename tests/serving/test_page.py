"""The web page in a real browser, before the real server and a tiny model; nothing may throw or be asked of another origin."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

import warmline
from tests.serving.browser import ARGUMENTS, CHAT, HELD, TAP, chromium_path, events, reading, said, scored, served, sources
from warmline.runs import RunFolder
from warmline.safety.guard import assess, crisis_message
from warmline.serving.api import create_app
from warmline.serving.engine import Engine
from warmline.tasks.emotion import EMOTIONS
from warmline.tasks.strategy import STRATEGIES

RED = "I want to kill myself tonight."
YELLOW = "Sometimes I think everyone would be better off without me."
PAYLOAD = " ".join((
    "<img src=x onerror='window.ran=1'>",
    "<script>window.ran=1</script>",
    "<svg onload=window.ran=1></svg>",
    "</p><iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "[x](javascript:window.ran=1) {{constructor.constructor('window.ran=1')()}} ${window.ran=1}",
))  # fmt: skip
Opener = Callable[..., Page]


class Server(NamedTuple):
    """The real thing."""

    address: str
    run: RunFolder


@pytest.fixture(scope="module")
def server(finished: RunFolder) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warmline.serving.engine.LONGEST_REPLY", 30)
        engine = Engine.open(finished.path, slots=2)
        with served(create_app(engine)) as address:
            yield Server(address, finished)
        engine.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Server, browser: Browser) -> Iterator[Opener]:
    """`visit(script="", **context)` opens the page; at the end no page may have thrown, broken its policy or left its origin."""
    contexts, wrong = [], []

    def open_page(script: str = "", welcome: bool = True, **options: Any) -> Page:
        context = browser.new_context(**{"reduced_motion": "reduce", "viewport": {"width": 1100, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        if script:
            page.add_init_script(script)
        page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" and "Failed to load" not in line.text else None)
        page.on("request", lambda request: wrong.append(request.url) if not _same_origin(request.url, server.address) else None)
        page.goto(server.address)
        expect(page.locator("#welcome")).to_be_visible(visible=welcome)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def _same_origin(url: str, address: str) -> bool:
    return urlsplit(url).netloc == urlsplit(address).netloc or url.startswith(f"blob:{address}/")


def _say(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.keyboard.press("Enter")
    expect(page.locator("body:not(.busy) .exchange:last-child .reply .again")).to_be_visible()


def _kept(page: Page) -> list[dict[str, Any]]:
    kept: dict[str, str] = page.evaluate("({...localStorage})")
    return [json.loads(text) for name, text in kept.items() if name.startswith("warmline.conversation.")]


# ---- talking


def test_reply_and_reading_are_the_servers_own(visit: Opener, server: Server) -> None:
    page = visit(TAP)
    _say(page, "My dog died and the house is so quiet.")
    _say(page, "I keep hearing her at the door.")
    chunks = [json.loads(line[6:]) for line in page.evaluate("window.answer").split("\n\n") if line.startswith("data: {")]
    written = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    last = page.locator(".exchange").last
    assert last.locator(".reply .said").text_content() == written.strip()
    messages = json.loads(page.evaluate("window.asked"))["messages"]
    assert [message["content"] for message in messages if message["role"] == "user"][-1] == "I keep hearing her at the door."
    expected = warmline.load(server.run.path).read(messages)
    for head, scores in expected.items():
        place = last.locator(f'[data-head="{head}"]')
        values = place.locator("data").evaluate_all("all => all.map(one => one.value)")
        shown = dict(zip(place.locator(".name").all_text_contents(), values, strict=True))
        best = sorted(scores, key=lambda label: -scores[label])[:5]
        assert {label: float(value) for label, value in shown.items()} == {label: scores[label] for label in best}  # to the last bit
        assert re.sub("^(hard to say, )?maybe ", "", place.locator(".word").text_content() or "") == best[0]
        expect(place.locator(".scores")).to_be_hidden()
        place.locator("button").click()
        expect(place.locator(".scores")).to_be_visible()


def test_reply_appears_as_it_is_written_and_escape_stops_it(visit: Opener) -> None:
    page = visit(HELD)
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_visible()
    page.evaluate("heard => reading(heard)", reading(joy=0.75))
    expect(page.locator(".word").first).to_have_text("joy")
    for piece in ("It ", "is ", "good. ", "Tell ", "me"):
        page.evaluate("piece => reply(piece)", piece)
    expect(page.locator(".reply .said")).to_have_text("It is good. Tell me")
    assert page.locator(".user").get_attribute("data-feeling") == "bright"
    assert page.locator("#announcer p").all_text_contents() == ["warmline is writing.", "It is good."]  # a sentence, never tokens
    page.keyboard.press("Escape")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".note")).to_have_text("Stopped here.")
    assert _kept(page)[0]["exchanges"][0]["reply"] == {"text": "It is good. Tell me", "unfinished": True}


def test_side_by_side_asks_both_models_the_same(visit: Opener) -> None:
    page = visit()
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    page.click("#compare")
    _say(page, "I passed my exam!")
    _say(page, "I want to call my mother.")
    assert [sorted(body["model"] for body in pair) for pair in (asked[:2], asked[2:])] == [["tiny", "tiny-base"]] * 2
    assert asked[2]["messages"] == asked[3]["messages"]
    voices = page.locator(".exchange").last.locator(".voice")
    assert voices.locator(".who").all_text_contents() == ["warmline", "The base, untuned"]
    texts = voices.locator(".said").all_text_contents()
    page.reload()
    assert page.locator(".exchange").last.locator(".voice .said").all_text_contents() == texts


def test_try_again_and_edit_take_the_newest_exchange(visit: Opener) -> None:
    page = visit()
    replies = iter(["one", "two", "three"])
    page.route(CHAT, lambda route: route.fulfill(**said(next(replies))))
    _say(page, "Hello")
    page.click("text=Try again")
    expect(page.locator(".reply .said")).to_have_text("two")
    with page.expect_request(CHAT) as asked:
        _say(page, "And then?")
    messages = [(message["role"], message["content"]) for message in asked.value.post_data_json["messages"]]
    assert messages == [("user", "Hello"), ("assistant", "two"), ("user", "And then?")]
    for text in ("And then?", "Hello"):
        page.locator("text=Edit").last.click()
        expect(page.locator("#message")).to_have_value(text)
    expect(page.locator("#welcome")).to_be_visible()
    assert _kept(page) == []


URGENCY = {
    "name": "urgency", "title": "Urgency", "explanation": "How soon an answer is needed.", "reads": "message",
    "labels": [{"name": "u0", "words": "can wait", "family": None}, {"name": "u1", "words": "cannot wait", "family": None}],
}  # fmt: skip


def test_a_head_of_which_the_page_knows_nothing_is_shown_as_the_server_says(visit: Opener, server: Server) -> None:
    page = visit()
    about = page.request.get(f"{server.address}/about").json()
    page.route("**/about", lambda route: route.fulfill(json={**about, "heads": [*about["heads"], URGENCY]}))
    page.route(CHAT, lambda route: route.fulfill(**said("Go on.", {**reading(joy=0.75), "urgency": scored(u1=0.375, u0=0.625)})))
    page.reload()
    _say(page, "Hello")
    for _ in range(2):  # and from storage
        expect(page.locator(".user .word")).to_have_text(["joy", "maybe cannot wait"])
        expect(page.locator(".reply .word")).to_have_text(["Question"])
        urgency = page.locator('.user [data-head="urgency"]')
        expect(urgency.locator("button")).to_have_attribute("aria-label", "Urgency: maybe cannot wait. Show probabilities")
        urgency.locator("button").click()
        expect(urgency.locator(".scores p")).to_have_text("How soon an answer is needed.")
        expect(urgency.locator(".name")).to_have_text(["can wait", "cannot wait"])
        expect(urgency.locator("data")).to_have_text(["63 %", "38 %"])
        assert page.locator(".user").get_attribute("data-feeling") == "bright"  # colours are the emotion's
        page.click("#open-menu")
        with page.expect_download() as saved:
            page.click("#export-text")
        assert "You (joy, cannot wait):" in saved.value.path().read_text(encoding="utf-8")
        page.reload()


def test_words_that_come_late_are_shown_then_and_none_are_needed_to_talk(visit: Opener) -> None:
    page = visit()
    waiting: list[Route] = []
    page.route("**/about", lambda route: waiting.append(route))
    page.route(CHAT, lambda route: route.fulfill(**said("Go on.", reading(joy=0.75))))
    page.reload()
    _say(page, "Hello")
    expect(page.locator(".reply .said")).to_have_text("Go on.")
    expect(page.locator(".reading")).to_have_count(0)
    waiting[0].continue_()
    expect(page.locator(".word")).to_have_text(["joy", "Question"])
    assert page.locator("html").get_attribute("data-feeling") == "bright"
    expect(page.locator("#compare")).to_be_visible()


def test_the_page_has_no_copy_of_the_heads() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in sources() if path.suffix == ".js")
    assert [word for word in ("emotion", "strategy", *EMOTIONS, *STRATEGIES) if f'"{word}"' in scripts or f".{word}" in scripts] == []
    assert not re.search(r"\b(emotion|strategy)\b", scripts)


# ---- nothing that is written runs


def test_markup_stays_text_wherever_it_comes_from(visit: Opener) -> None:
    page, payload = visit(), PAYLOAD
    heard = reading("yellow", payload, **{payload: 0.75, "joy": 0.25})
    heard["strategy"] = {"label": payload, "probability": 0.75, "scores": {payload: 0.75}}
    heard["risk"] |= {"crisis_line": payload, "emergency_number": f"112 {payload}"}
    page.route(CHAT, lambda route: route.fulfill(**said(payload, heard)))
    _say(page, payload)
    page.unroute(CHAT)
    page.route(CHAT, lambda route: route.fulfill(status=400, json={"error": {"message": payload}}))
    page.fill("#message", payload)
    page.keyboard.press("Enter")
    expect(page.locator(".trouble .detail")).to_have_text(payload)
    for _ in range(2):  # and from storage
        for place in (".user .said", ".reply .said", ".crisis .message", '[data-head="emotion"] .word', '[data-head="strategy"] .name'):
            expect(page.locator(place).first).to_have_text(payload)
        page.click("#open-menu")
        expect(page.locator("#kept .open span")).to_have_text(f"{payload[:57]}…")
        assert page.locator(":is(#conversation, #kept) :is(img, script, svg, iframe)").count() == 0
        assert page.evaluate("window.ran") is None
        for link in page.locator("#conversation a").all():
            assert re.match(r"(tel|sms):\d+$|https://findahelpline\.com$", link.get_attribute("href") or "")
        page.reload()
    assert page.evaluate("window.ran") is None


def test_markup_through_the_real_server_stays_text(visit: Opener) -> None:
    page = visit()
    _say(page, PAYLOAD)
    expect(page.locator(".user .said")).to_have_text(PAYLOAD)
    assert page.locator("#conversation img").count() == 0


def test_sources_hold_no_way_to_run_text_and_no_address_outside() -> None:
    for path in sources():
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser", text)
        assert not found, f"{path.name}: {found}"
        outside = {url for url in re.findall(r"https?://[^\s\"'`)]+|url\([^)]*\)", text) if not url.endswith(("2000/svg", "url(#ember)"))}
        assert outside <= {"https://${SITE}", "https://findahelpline.com"}, f"{path.name}: {outside}"
    page = next(path for path in sources() if path.name == "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script>", page)


# ---- when somebody is at risk


def test_red_card_is_the_reply_with_the_countrys_numbers(visit: Opener) -> None:
    page = visit()
    page.click("#compare")
    page.select_option("#country", "GB")
    page.fill("#message", RED)
    page.keyboard.press("Enter")
    card = page.locator(".crisis")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".voice")).to_have_count(0)  # nothing of a model's, neither tuned nor base
    expect(page.locator(".reply")).to_be_hidden()
    expect(card).to_have_attribute("role", "alert")
    expect(card.locator(".message")).to_have_text(crisis_message(assess(RED), "GB"))
    assert card.locator(".calls a").evaluate_all("all => all.map(one => one.getAttribute('href'))") == ["tel:999", "tel:116123"]
    assert page.evaluate("[...document.querySelector('.exchange').children].map(one => [...one.classList].at(-1))") == [
        "user", "crisis", "reply",
    ]  # fmt: skip
    expect(page.locator('[data-head="emotion"], [data-feeling]')).to_have_count(0)  # no guess at a mood beside it
    page.fill("#message", RED)
    page.keyboard.press("Enter")
    second = page.locator(".exchange").last.locator(".crisis")  # said again, it is answered again, aloud
    expect(page.locator(".crisis")).to_have_count(2)
    expect(second).to_have_attribute("role", "alert")
    expect(second.locator(".message")).to_have_text(crisis_message(assess(RED), "GB"))
    page.locator("text=Edit").last.click()
    page.fill("#message", "")
    page.select_option("#country", "US")  # the card follows the menu at once
    expect(card.locator(".calls a")).to_have_text([re.compile("911"), re.compile("Call 988.*988 Suicide"), re.compile("Text 988")])
    expect(card.locator(".message")).to_have_text(crisis_message(assess(RED), "US"))
    page.click("#compare")
    with page.expect_request(CHAT) as asked:
        _say(page, "I don't know.")
    assert [one["role"] for one in asked.value.post_data_json["messages"]] == ["user", "assistant", "user"]
    assert asked.value.post_data_json["messages"][1]["content"] == crisis_message(assess(RED), "US")
    again = page.locator(".exchange").last.locator(".crisis")
    expect(again).to_have_attribute("role", "group")  # the same card a turn later: numbers, no second alarm
    expect(again.locator("[href='tel:988']")).to_be_visible()


def test_yellow_card_follows_the_reply(visit: Opener) -> None:
    page = visit()
    _say(page, YELLOW)
    assert assess(YELLOW).level == "yellow"
    assert page.locator(".exchange > :last-child").get_attribute("data-level") == "yellow"
    expect(page.locator(".calls a")).to_have_attribute(
        "href", "https://findahelpline.com"
    )  # no country was chosen, so no number is guessed


@pytest.mark.parametrize("status", [429, 400, 500])
def test_card_stands_where_there_is_no_reply(visit: Opener, status: int) -> None:
    page = visit()
    risk = reading("yellow", "Somebody is there for you.")["risk"]
    page.route(CHAT, lambda route: route.fulfill(status=status, json={"error": {"message": "no"}, "warmline": {"risk": risk}}))
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".crisis .message")).to_have_text("Somebody is there for you.")
    expect(page.locator(".trouble")).to_be_visible()


def test_card_comes_before_the_reading_and_once(visit: Opener) -> None:
    page = visit(HELD)
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    first = {**reading("yellow", "Somebody is there for you."), "emotion": None, "strategy": None}
    page.evaluate("heard => reading(heard)", first)
    expect(page.locator(".crisis .message")).to_have_text("Somebody is there for you.")
    page.evaluate("document.querySelector('.crisis').marked = true")
    page.evaluate("heard => reading(heard)", reading("yellow", "Somebody is there for you."))
    expect(page.locator(".word").first).to_be_visible()
    assert page.evaluate("document.querySelector('.crisis').marked")


def test_long_reply_does_not_scroll_the_numbers_away(visit: Opener) -> None:
    page = visit(viewport={"width": 390, "height": 700})
    heard = reading("red", "Please call 112. " * 20)
    page.route(CHAT, lambda route: route.fulfill(**said("A long reply. " * 300, heard)))
    _say(page, "Hello")
    expect(page.locator(".calls a").first).to_be_in_viewport()
    expect(page.locator("#newest")).to_be_visible()


# ---- what is kept


def test_conversation_is_kept_in_this_browser_exported_and_erased(visit: Opener) -> None:
    page = visit()
    _say(page, "I am nervous about Monday.")
    shown = page.locator("#conversation .said").all_text_contents()
    page.reload()
    assert page.locator("#conversation .said").all_text_contents() == shown
    page.click("#open-menu")
    with page.expect_download() as json_file:
        page.click("#export-json")
    exported = json.loads(json_file.value.path().read_text(encoding="utf-8"))
    assert exported["exchanges"] == _kept(page)[0]["exchanges"]
    assert exported["answered_by"]["run"] == "tiny"
    with page.expect_download() as text_file:
        page.click("#export-text")
    assert text_file.value.suggested_filename.endswith(".txt")
    assert "I am nervous about Monday." in text_file.value.path().read_text(encoding="utf-8")
    page.click("#erase")
    page.keyboard.press("Escape")  # no
    assert len(_kept(page)) == 1
    page.click("#erase")
    page.click("#confirm [value=yes]")
    expect(page.locator("#welcome")).to_be_visible()
    page.reload()
    assert _kept(page) == []
    expect(page.locator("#welcome")).to_be_visible()


def test_several_conversations_and_erasing_all(visit: Opener) -> None:
    page = visit()
    page.route(CHAT, lambda route: route.fulfill(**said("Yes.")))
    for text in ("The first", "The second"):
        page.click("#new")
        _say(page, text)
    page.click("#open-menu")
    page.click("#kept >> text=The first")
    expect(page.locator(".user .said")).to_have_text("The first")
    page.click("#open-menu")
    page.click("#erase-all")
    page.click("#confirm [value=yes]")
    expect(page.locator("#welcome")).to_be_visible()
    assert _kept(page) == []


def test_erased_while_a_reply_is_on_its_way_stays_erased(visit: Opener) -> None:
    page = visit(HELD)
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.evaluate("reply('Well')")
    page.click("#open-menu")
    page.click("#erase")
    page.click("#confirm [value=yes]")
    expect(page.locator("#welcome")).to_be_visible()
    page.reload()
    assert _kept(page) == []


def test_unreadable_storage_is_left_alone(visit: Opener) -> None:
    garbage = {"warmline.preferences": "[", "warmline.conversation.x": "{]", "warmline.conversation.y": '{"exchanges": 3}', "other": "1"}
    page = visit(f"for (const [name, text] of Object.entries({json.dumps(garbage)})) localStorage.setItem(name, text);")
    page.click("#open-menu")
    expect(page.locator("#kept")).to_have_text("None yet.")
    assert page.evaluate("localStorage.getItem('warmline.conversation.x')") == "{]"


WHOLE = {"said": "Hello", "reading": None, "reply": {"text": "Hi.", "unfinished": False}, "base": None}
OTHERWISE: dict[str, Any] = {
    "no scores": {"reading": {"emotion": {"label": "joy", "probability": 0.9}, "strategy": {"label": "Others", "scores": None}}},
    "no risk": {"reading": {"emotion": scored(joy=1.0)}},
    "no texts": {"reading": {"risk": {"level": "red", "message": 3, "crisis_line": {}, "emergency_number": [1]}}},
    "another level": {"reading": {"risk": {"level": "blue"}}},
    "scores of words": {"reading": {"emotion": {"label": "joy", "probability": "much", "scores": {"joy": "much"}}}},
    "a reading of text": {"reading": "joy"},
    "a reply of text": {"reply": "Hi."},
    "a reply without text": {"reply": {"unfinished": True}, "base": 3},
    "neither": {"reading": 0, "reply": [], "base": {"text": None}},
    "nothing else": {"reading": [], "reply": None},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_conversation_of_another_version_is_shown_as_far_as_it_can_be_read(visit: Opener, name: str) -> None:
    """Opened anew at every load, it would otherwise break the page at every load."""
    broken = {"exchanges": [WHOLE, {"said": "Danger" if "texts" in name else "Old"} | OTHERWISE[name], "no exchange", {"reply": WHOLE}]}
    preferences = {"open": "old", "theme": {}, "country": ["GB"], "compare": 1}
    stored = {"warmline.conversation.old": json.dumps(broken), "warmline.preferences": json.dumps(preferences)}
    script = f"for (const [name, text] of Object.entries({json.dumps(stored)})) if (!sessionStorage.set) localStorage.setItem(name, text);"
    page = visit(f"{script} sessionStorage.set = 1;", welcome=False)
    expect(page.locator(".exchange")).to_have_count(2)
    expect(page.locator(".exchange .user .said").first).to_have_text("Hello")
    expect(page.locator(".crisis")).to_have_count(1 if name == "no texts" else 0)
    page.click("#open-menu")
    expect(page.locator("#kept button.open")).to_have_count(1)
    page.click("[data-close]")
    _say(page, "And now?")
    expect(page.locator(".exchange")).to_have_count(3)
    page.reload()
    expect(page.locator(".exchange")).to_have_count(3)


# ---- when something fails


@pytest.mark.parametrize(
    ("answer", "what", "detail"),
    [
        (
            {"status": 429, "headers": {"Retry-After": "7"}, "json": {"error": {"message": "full"}}},
            "Many people",
            "Try again in 7 seconds.",
        ),
        ({"status": 503, "json": {"error": {"message": "shutting down"}}}, "resting", "shutting down"),
        ({"status": 413, "json": {"error": {"message": "too long"}}}, "could not take", "too long"),
        (
            {"status": 400, "json": {"error": {"message": "9,000 tokens", "code": "context_length_exceeded"}}},
            "Begin a new one",
            "9,000 tokens",
        ),
        ({"status": 500, "body": "<h1>no JSON</h1>"}, "Something broke", "Internal Server Error"),
        (events({"choices": [{"delta": {"content": "And"}}]}, done=False), "lost the connection", "ended before"),
        (events({"error": {"message": "the model failed"}}), "Something broke", "the model failed"),
    ],
    ids=["busy", "closing", "too long", "full", "broken", "broken off", "broken in mid-stream"],
)
def test_trouble_is_told_kindly_and_can_be_tried_again(visit: Opener, answer: dict[str, Any], what: str, detail: str) -> None:
    page = visit()
    page.route(CHAT, lambda route: route.fulfill(**answer))
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    trouble = page.locator(".trouble")
    expect(trouble).to_have_attribute("role", "alert")
    expect(trouble).to_contain_text(what)
    expect(trouble.locator(".detail")).to_contain_text(detail)
    expect(trouble.locator("a")).to_have_attribute("href", "https://findahelpline.com")  # a guard that cannot be reached hears no risk
    page.unroute(CHAT)
    page.route(CHAT, lambda route: route.fulfill(**said("There you are.")))
    trouble.locator("button").click()
    expect(page.locator(".reply .said")).to_have_text("There you are.")
    expect(trouble).to_have_count(0)


def test_what_came_before_the_connection_broke_is_kept(visit: Opener) -> None:
    page = visit(HELD)
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.evaluate("reply('Well, ')")
    page.evaluate("breakOff()")
    expect(page.locator(".trouble .what")).to_contain_text("I lost the connection")
    page.reload()
    expect(page.locator(".reply .said")).to_have_text("Well,")
    page.click("text=Try again")
    page.evaluate("reply('No, ')")
    expect(page.locator(".reply .said")).to_have_text("No,")
    page.reload()  # in the middle of it
    expect(page.locator(".reply .said")).to_have_text("No,")
    expect(page.locator(".reply .again")).to_be_visible()


def test_says_when_the_browser_keeps_nothing(visit: Opener) -> None:
    full = """const real = Storage.prototype.setItem;
    Storage.prototype.setItem = function (name, text) {
        if (name.startsWith("warmline.conversation")) throw new DOMException("full", "QuotaExceededError");
        real.call(this, name, text);
    };"""
    page = visit(full, viewport={"width": 390, "height": 700})
    page.route(CHAT, lambda route: route.fulfill(**said("Still here.")))
    _say(page, "Hello")
    expect(page.locator(".reply .said")).to_have_text("Still here.")
    expect(page.locator("#keys")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("does not keep")


def test_key_is_asked_for_and_forgotten_with_the_tab(visit: Opener) -> None:
    page = visit()

    def guard(route: Route) -> None:
        right = route.request.headers.get("authorization") == "Bearer open sesame"
        route.fulfill(**(said("Welcome.") if right else {"status": 401, "json": {"error": {"message": "wrong or missing API key"}}}))

    page.route(CHAT, guard)
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.fill("#key", "open sesame")
    page.keyboard.press("Enter")
    expect(page.locator(".reply .said")).to_have_text("Welcome.")
    assert "open sesame" not in json.dumps(page.evaluate("({...localStorage})"))
    assert "open sesame" in json.dumps(page.evaluate("({...sessionStorage})"))


# ---- for everyone


def test_keyboard_alone_is_enough(visit: Opener) -> None:
    page = visit()
    _reach(page, "skip", "Shift+Tab")
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#message")).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    expect(page.locator(".exchange .again")).to_be_visible()
    assert page.locator(".user .said").text_content() == "one\ntwo"
    expect(page.locator("#message")).to_be_focused()
    _reach(page, "pill", "Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".exchange .pill[aria-expanded=true]")).to_have_count(1)
    _reach(page, "open-menu", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#menu")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#menu")).to_be_hidden()
    expect(page.locator("#open-menu")).to_be_focused()


def _reach(page: Page, wanted: str, key: str) -> None:
    for _ in range(12):
        page.keyboard.press(key)
        if wanted in page.evaluate("[document.activeElement.id, ...document.activeElement.classList]"):
            return
    pytest.fail(f"{wanted} cannot be reached with {key}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Opener, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    axe = Axe()
    found = [axe.run(page)]
    risks = iter(["red", "red", "yellow", "yellow"])
    page.route(CHAT, lambda route: route.fulfill(**said("I hear you.", reading(next(risks), "Please call 112.", grief=0.75, joy=0.25))))
    page.click("#compare")  # so that each turn asks twice
    _say(page, "Hello")
    _say(page, "Hello again")
    for pill in page.locator(".pill").all():
        pill.click()
    found.append(axe.run(page))
    page.unroute(CHAT)
    page.route(CHAT, lambda route: route.fulfill(status=503, json={"error": {"message": "closing"}}))
    page.fill("#message", "Are you there?")
    page.keyboard.press("Enter")
    expect(page.locator(".trouble")).to_be_visible()
    page.click("#open-menu")
    found.append(axe.run(page))
    assert [violation["id"] for one in found for violation in one.response["violations"]] == []


CONTRAST = """
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement("div"));
  const paint = (...layers) => {  // layers of CSS colours over each other, as the browser paints them
    for (const layer of layers) {
      probe.style.color = layer;
      canvas.fillStyle = getComputedStyle(probe).color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => rgb
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const ratio = (one, other) => {
    const [low, high] = [luminance(paint(one)), luminance(paint(...other))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const v = (name) => `var(--${name})`;
  const families = ["tender", "bright", "low", "uneasy", "heated", "stirred", "still"];
  const glows = families.map((name) => `color-mix(in oklab, var(--${name}-glow) 34%, transparent)`);
  const papers = [[v("paper")], ...glows.map((glow) => [v("paper"), glow])];
  const found = {};
  const check = (ink, grounds, least) => grounds.forEach((ground, at) => {
    found[`${ink} on ${ground.at(-1)} ${at}`] = [ratio(v(ink), ground), least];
  });
  for (const ink of ["ink", "muted", "accent", ...families]) check(ink, [...papers, [v("surface")]], 4.5);
  for (const ink of ["ink", "muted", ...families]) check(ink, [[v("raised")]], 4.5);
  for (const name of families) check("ink", [[v(`${name}-tint`)]], 4.5);
  check("ink", [[v("warn-paper")], [v("alarm-paper")]], 4.5);
  check("on-accent", [[v("accent")]], 4.5);
  check("danger", [[v("surface")]], 4.5);
  check("edge", [[v("paper")], [v("surface")]], 3);
  for (const [edge, ground] of [["warn-edge", "paper"], ["alarm-edge", "paper"]]) check(edge, [[v(ground)]], edge === "warn-edge" ? 1 : 3);
  probe.remove();
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(visit: Opener, scheme: str) -> None:
    found: dict[str, list[float]] = visit(color_scheme=scheme).evaluate(CONTRAST)
    assert len(found) > 90
    assert {pair: round(ratio, 2) for pair, (ratio, least) in found.items() if ratio < least} == {}  # WCAG 2.2 AA


def test_dark_and_light_follow_the_device_or_the_choice(visit: Opener) -> None:
    page = visit(color_scheme="dark")

    def lightness() -> float:
        rgb: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(value) for value in re.findall(r"\d+", rgb)) / 3

    assert lightness() < 60
    page.click("#open-menu")
    page.locator("#menu label", has_text=re.compile("^Light$")).click()
    assert lightness() > 230
    page.reload()
    assert lightness() > 230
    page.click("#open-menu")
    page.click("#menu >> text=As the device")
    assert lightness() < 60


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_screen(visit: Opener, width: int) -> None:
    page = visit(viewport={"width": width, "height": 700})
    word = "Pneumonoultramicroscopicsilicovolcanoconiosis" * 40
    heard = reading("yellow", f"Please call 0800 1110111. {word}", **{"disappointment" * 4: 0.75, "joy": 0.25})
    page.route(CHAT, lambda route: route.fulfill(**said(f"{word} and {'so on ' * 200}", heard)))
    _fits(page, width)
    page.click("#compare")
    page.fill("#message", "x" * 10_000)
    _fits(page, width)
    page.keyboard.press("Enter")
    expect(page.locator(".exchange .again")).to_be_visible()
    for pill in page.locator(".pill").all():
        pill.click()
    assert page.locator(".user .said").text_content() == "x" * 10_000
    _fits(page, width)
    page.click("#open-menu")
    _fits(page, width)
    assert page.evaluate("document.getElementById('menu').scrollWidth <= document.getElementById('menu').clientWidth")


def _fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = page.evaluate(
        """width => [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility() && !one.closest('.unseen, .glow'))
        .filter((one) => { const box = one.getBoundingClientRect(); return box.right > width + 1 || box.left < -1; })
        .map((one) => one.outerHTML.slice(0, 80))""",
        width,
    )
    assert too_wide == []
    expect(page.locator("#send")).to_be_in_viewport()


def test_says_that_it_is_an_ai_and_where_conversations_are(visit: Opener) -> None:
    page = visit()
    expect(page.locator("#welcome")).to_contain_text("not a person and not a therapist")
    expect(page.locator("#welcome")).to_contain_text("kept in this browser only")
    page.click("text=I feel flat today")
    expect(page.locator("#composer")).to_contain_text("An AI, not a therapist.")
    assert page.evaluate("getComputedStyle(document.querySelector('.exchange')).animationName") == "none"  # prefers-reduced-motion
    page.click("#open-menu")
    expect(page.locator("#about")).to_contain_text("tiny")
