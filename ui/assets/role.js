// Which role looks at the page, so that role.css leaves out what is not for it. Nothing depends on it:
// the server asks at every request and event.
(async () => {
  try {
    const response = await fetch(new URL("api/account", document.baseURI));
    const { role } = await response.json();
    if (role) document.documentElement.dataset.role = role;
  } catch {} // alive.js says that the server is gone
})();
