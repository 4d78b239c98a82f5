// What pages do beyond their HTML; without this they work too. Live pages ask for themselves again and take over what
// has changed; actions are confirmed in a dialog instead of on a page of their own.

const live = document.getElementById("live");
const stale = document.getElementById("stale");
const dialog = document.getElementById("dialog");

const PATIENCE_MS = 15_000;
const SOON_MS = 2_000;

// --- live pages

let timer = 0;
let asking = null;

function later() {
  clearTimeout(timer);
  const every = Number(live.dataset.every);
  if (every > 0 && !document.hidden) timer = setTimeout(refresh, every * 1000);
}

async function refresh() {
  if (asking) return;
  asking = new AbortController();
  const impatience = setTimeout(() => asking.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(location.href, { signal: asking.signal, headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") {
      location.reload();
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.status === 503 || answer.status >= 500) {
      tellStale(page.querySelector("#live .reason")?.textContent ?? `The server answers ${answer.status}.`);
    } else {
      take(page);
    }
  } catch {
    tellStale("The server doesn't answer.");
  } finally {
    clearTimeout(impatience);
    asking = null;
    later();
  }
}

function take(page) {
  const fresh = page.getElementById("live");
  if (!fresh) return;
  stale.hidden = true;
  live.classList.remove("stale");
  document.title = page.title;
  if (fresh.dataset.every) live.dataset.every = fresh.dataset.every;
  else delete live.dataset.every;
  Idiomorph.morph(live, fresh.innerHTML, {
    morphStyle: "innerHTML",
    callbacks: {
      // What a reader has opened stays open.
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    },
  });
}

function tellStale(why) {
  live.dataset.every ||= String(SOON_MS / 1000);
  if (document.querySelector("#live .wrong")) return; // the whole page says so
  const text = `${why.trim()} What is shown is older; it goes on by itself.`;
  if (stale.hidden || stale.textContent !== text) stale.textContent = text;
  stale.hidden = false;
  live.classList.add("stale");
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && live.dataset.every) refresh();
});
later();

// --- actions

document.addEventListener("click", async (event) => {
  const button = event.target.closest("a[data-act]");
  if (button && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    await ask(button.href);
    return;
  }
  if (event.target.closest("#dialog [data-close]")) {
    event.preventDefault();
    dialog.close();
  }
});

// Buttons that are links are pressed by the space bar as well.
document.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target.matches("a[role=button]")) {
    event.preventDefault();
    event.target.click();
  }
});

async function ask(address) {
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const form = page.getElementById("act");
    if (!form) {
      location.assign(address);
      return;
    }
    dialog.replaceChildren(document.adoptNode(form));
    dialog.showModal();
    form.querySelector("textarea, input:not([type=hidden])")?.focus();
  } catch {
    location.assign(address);
  }
}

document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[data-sending]");
  if (!button) return;
  if (button.getAttribute("aria-disabled") === "true") {
    event.preventDefault(); // it is on its way already
    return;
  }
  button.setAttribute("aria-disabled", "true");
  button.textContent = button.dataset.sending;
});

// Back from the page that was sent to: the browser may show this one as it was left.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
