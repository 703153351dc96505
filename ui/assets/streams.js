// What Gradio's events answer comes in one stream for all of a page. The server ends it when it has answered
// all, and says so (close_stream); what is asked for next has a new one opened. An event asked for in that
// moment would wait for ever: the page has its number while it still believes in the old stream, and nobody
// listens to the next. Here the stream goes on while an answer is missing, and while Gradio hears of an end,
// it hears of no new event.
(() => {
  const plain = window.fetch.bind(window);
  const missing = new Set(); // numbers of events that were asked for and not answered
  const early = new Set(); // and of those answered before their number was here
  let ended = Promise.resolve(); // Gradio has heard of the last end

  const asked = async (what, options) => {
    const response = await plain(what, options);
    const { event_id: number } = response.ok ? await response.clone().json() : {};
    if (number && !early.delete(number)) missing.add(number);
    await ended;
    return response;
  };

  const cancelled = (options) => {
    try {
      missing.delete(JSON.parse(options.body).event_id);
    } catch {
      // not ours to read
    }
  };

  const streamed = async (request) => {
    const { signal } = request;
    const mine = new AbortController();
    signal.addEventListener("abort", () => mine.abort());
    const open = () => plain(new Request(request.clone(), { signal: mine.signal }));
    const first = await open();
    if (!first.ok) return first;
    const messages = async function* () {
      let response = first;
      for (;;) {
        let last;
        for await (const message of split(response.body)) {
          const { msg, event_id: number } = said(message);
          if (msg === "process_completed" && !missing.delete(number)) early.add(number);
          last = msg;
          if (msg !== "close_stream") yield message;
          else if (!missing.size) {
            ended = new Promise((heard) => signal.addEventListener("abort", heard));
            yield message;
          }
        }
        if (last !== "close_stream" || !missing.size) return;
        response = await open();
        if (!response.ok) throw new Error(`the stream of events: ${response.status}`);
      }
    };
    return new Response(bytes(messages()), first);
  };

  // Messages of server-sent events: what stands before each empty line.
  const split = async function* (body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      yield* parts;
    }
  };

  const said = (message) => {
    try {
      return JSON.parse(message.replace(/^data: ?/, ""));
    } catch {
      return {};
    }
  };

  const bytes = (messages) => {
    const encoder = new TextEncoder();
    return new ReadableStream({
      async pull(out) {
        const { done, value } = await messages.next();
        if (done) out.close();
        else out.enqueue(encoder.encode(`${value}\n\n`));
      },
      async cancel() {
        await messages.return();
      },
    });
  };

  window.fetch = (what, options) => {
    const path = new URL(what.url ?? what, document.baseURI).pathname;
    if (path.endsWith("/queue/join")) return asked(what, options);
    if (path.endsWith("/queue/data")) return streamed(new Request(what, options));
    if (path.endsWith("/cancel")) cancelled(options);
    return plain(what, options);
  };
})();
