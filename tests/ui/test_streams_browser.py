"""Events that are asked for while the server ends the stream of those before them: they are
answered, too, however the messages meet.
"""

from typing import Any

import pytest
from waited import expect

from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank", "people", "results")  # others take their time to build
SLOW = """({ end, answer }) => {
  const plain = window.fetch.bind(window);
  const later = (ms) => new Promise((go) => setTimeout(go, ms));
  window.ended = 0;
  window.fetch = async (what, options) => {
    const path = new URL(what.url ?? what, location.href).pathname;
    const response = await plain(what, options);
    if (path.endsWith("/queue/join")) await later(answer);
    if (!path.endsWith("/queue/data")) return response;
    const slow = new TransformStream({
      async transform(part, out) {
        const text = new TextDecoder().decode(part);
        const at = text.indexOf('data: {"msg":"close_stream"');
        const encoded = (each) => new TextEncoder().encode(each);
        if (at < 0) return out.enqueue(part);
        if (at > 0) out.enqueue(encoded(text.slice(0, at)));
        await later(end);
        window.ended += 1;
        out.enqueue(encoded(text.slice(at)));
      },
    });
    return new Response(response.body.pipeThrough(slow), response);
  };
}"""
"""What a busy machine does: a stream's end, and answers, come late to the page."""


@pytest.mark.parametrize(("end", "answer"), [(1500, 0), (300, 600), (0, 300)])
def test_what_is_asked_for_while_a_stream_ends_is_answered(
    page: Any, address: str, store: Store, add_items: Any, end: int, answer: int
) -> None:
    add_items(1)
    page.add_init_script(f"({SLOW})({{ end: {end}, answer: {answer} }})")
    page.goto(f"{address}/results")
    expect(page.locator(".none-yet")).to_be_visible()
    page.wait_for_function("() => window.ended > 0 && !document.querySelector('.progress-text')")
    page.get_by_label("Prompts").click()
    page.get_by_role("option", name="those of a list", exact=True).click()
    expect(page.get_by_label("List of prompts")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("expected at least one prompt")
