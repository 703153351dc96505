// Tells when the server is gone or was restarted: events of a page that an earlier server made
// lead nowhere, and what was generated is gone with its memory. Rank needs none of this: it talks to
// routes that stay the same.
(() => {
  const EVERY_MS = 3000;
  const born = document.querySelector('meta[name="imgalign-server"]').content;
  let missed = 0;

  const banner = (text, action) => {
    let node = document.querySelector("#alive");
    if (!node) {
      node = document.createElement("div");
      node.id = "alive";
      node.setAttribute("role", "alert");
      node.append(document.createElement("p"), document.createElement("button"));
      node.lastChild.className = "btn btn-primary";
      node.lastChild.textContent = "Reload";
      node.lastChild.addEventListener("click", () => location.reload());
      document.body.append(node);
    }
    node.firstChild.textContent = text;
    node.lastChild.hidden = !action;
  };

  const look = async () => {
    if (document.hidden || document.querySelector("#ranker")) return;
    let server;
    try {
      const options = { signal: AbortSignal.timeout(10000), cache: "no-store" };
      const response = await fetch(new URL("api/alive", document.baseURI), options);
      if (response.status >= 500) throw new Error(`status ${response.status}`);
      server = (await response.json()).server;
    } catch {
      missed += 1;
      if (missed > 1) banner("The app does not respond. This page continues when it does.", false);
      return;
    }
    missed = 0;
    if (server !== born) banner("The app was restarted. Reload this page to continue.", true);
    else document.querySelector("#alive")?.remove();
  };

  setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
})();
