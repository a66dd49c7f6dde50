// Keeps the page what the server would now answer: it asks for the page again,
// and puts in the parts that differ. Without it the page is whole; reload it.
(() => {
  'use strict';
  const every = 5000; // ms between answers; longer where an answer takes long
  const patience = 20000;
  const box = document.getElementById('live');
  const word = document.getElementById('live-word');
  const button = document.getElementById('live-switch');
  const root = document.documentElement;
  let paused = false, timer = 0, asking = null, tag = null, lostSince = null;

  function say(text, state) {
    if (word.textContent !== text) word.textContent = text;
    box.dataset.state = state;
  }

  function next(ms) {
    clearTimeout(timer);
    timer = paused ? 0 : setTimeout(ask, ms);
  }

  function ask() {
    clearTimeout(timer);
    if (asking || paused) return;
    if (document.hidden) return; // asks again when it is seen
    const began = Date.now();
    const x = asking = new XMLHttpRequest();
    x.open('GET', location.pathname + location.search);
    x.responseType = 'document'; // parsed, and nothing in it runs
    x.timeout = patience;
    x.onload = () => {
      const page = x.response;
      if (!page || !page.getElementById('main')) return lost();
      lostSince = null;
      root.classList.remove('lost');
      say('Live', 'live');
      if (page.documentElement.dataset.assets !== root.dataset.assets) return location.reload(); // another version answers
      if (tag === null || x.getResponseHeader('ETag') !== tag) put(page);
      tag = x.getResponseHeader('ETag') || '';
    };
    x.onerror = x.ontimeout = lost;
    x.onloadend = () => {
      asking = null;
      next(Math.max(every, 20 * (Date.now() - began)));
    };
    x.send();
  }

  // An answer that nobody stands behind any more must not look like one.
  function lost() {
    lostSince = lostSince || new Date();
    root.classList.add('lost');
    say('No answer since ' + lostSince.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }), 'lost');
  }

  function put(page) {
    const before = states(document);
    for (const old of document.querySelectorAll('[data-live]')) {
      const fresh = page.getElementById(old.id);
      if (!fresh || old.isEqualNode(fresh) || selected(old)) continue;
      const focus = focusIn(old);
      const open = [...old.querySelectorAll('details[open]')].map((d) => d.id);
      old.replaceWith(document.adoptNode(fresh));
      for (const id of open) { const d = document.getElementById(id); if (d) d.open = true; }
      if (focus) focus(fresh);
    }
    document.title = page.title;
    for (const [key, row] of states(document)) {
      const was = before.get(key);
      if (was && was.dataset.state !== row.dataset.state) row.classList.add('changed');
    }
  }

  function states(doc) {
    return new Map([...doc.querySelectorAll('[data-key]')].map((row) => [row.dataset.key, row]));
  }

  // What somebody is marking stays under their pointer.
  function selected(part) {
    const s = getSelection();
    return s && !s.isCollapsed && s.containsNode(part, true);
  }

  // The focus stays on the same link.
  function focusIn(part) {
    const at = document.activeElement;
    if (!at || !part.contains(at)) return null;
    const to = at.id ? '#' + CSS.escape(at.id) : at.getAttribute('href') ? 'a[href="' + CSS.escape(at.getAttribute('href')) + '"]' : 'summary';
    const which = [...part.querySelectorAll(to)].indexOf(at);
    return (fresh) => {
      const found = fresh.querySelectorAll(to);
      if (found.length) found[Math.min(which, found.length - 1)].focus({ preventScroll: true });
    };
  }

  // The stream of changes says when it is worth asking at once. Without it the
  // page asks every few seconds. A page that nobody sees holds no connection.
  let stream = null, soon = 0;
  function listen() {
    const wanted = !paused && !document.hidden;
    if (wanted === (stream !== null)) return;
    if (!wanted) {
      stream.close();
      stream = null;
      return;
    }
    stream = new EventSource('/api/v1/events');
    for (const kind of ['signer-added', 'signer-removed', 'policy-changed', 'signature-trusted', 'signature-lost', 'expired', 'withdrawn', 'restored', 'reset']) {
      stream.addEventListener(kind, () => {
        clearTimeout(soon);
        soon = setTimeout(ask, 150); // several come together
      });
    }
  }

  button.addEventListener('click', () => {
    paused = !paused;
    button.textContent = paused ? 'Resume' : 'Pause';
    listen();
    if (paused) {
      clearTimeout(timer);
      say('Paused', 'paused');
    } else {
      say('Live', 'live');
      ask();
    }
  });
  document.addEventListener('visibilitychange', () => { listen(); ask(); });
  addEventListener('pageshow', (e) => { if (e.persisted) ask(); });
  box.hidden = false;
  say('Live', 'live');
  next(every);
  listen();
})();
