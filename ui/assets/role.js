// Who looks at the page, where there are accounts: the header names them, leads to their password and logs them out, and
// role.css leaves out what is not for their role. Nothing depends on it: the server asks at every
// request and event.
(() => {
  const known = fetch(new URL("api/account", document.baseURI))
    .then((answer) => answer.json())
    .catch(() => ({})); // alive.js says that the server is gone
  const leave = async (name) => {
    const drafts = document.querySelector("#ranker") ? " What is half done stays in this browser." : "";
    if (!confirm(`Log out ${name}?${drafts}`)) return;
    await fetch(new URL("api/logout", document.baseURI), { method: "POST" });
    location.assign(new URL("enter", document.baseURI));
  };
  const greet = async (box) => {
    const { name, role } = await known;
    if (!name) return;
    document.documentElement.dataset.role = role;
    box.querySelector("b").textContent = name;
    box.querySelector("a").title = `${name}: change your password`;
    box.querySelector("button").addEventListener("click", () => leave(name));
    box.hidden = false;
  };
  const look = () => {
    const box = document.querySelector(".top .who");
    if (!box) return;
    watching.disconnect();
    greet(box);
  };
  const watching = new MutationObserver(look); // gradio draws the header after this
  watching.observe(document, { childList: true, subtree: true });
})();
