// Each page's title is its heading, which gradio draws after it has set one title for all.
(() => {
  const name = () => {
    const heading = document.querySelector(".top h1");
    if (!heading) return;
    watching.disconnect();
    if (document.title === "imgalign") document.title = `${heading.textContent} - imgalign`;
  };
  const watching = new MutationObserver(name);
  watching.observe(document, { childList: true, subtree: true });
})();
