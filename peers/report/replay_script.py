"""The report's one script: it moves the cursor of the replay and draws the swarm at a moment."""

SCRIPT = """
(() => {
const box = document.currentScript.parentElement;
const run = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
const slider = box.querySelector('input'), button = box.querySelector('button');
const cursor = box.querySelector('.cursor'), ring = box.querySelector('.ring');
const now = box.querySelector('.now'), SVG = box.querySelector('svg').namespaceURI;
const recent = Math.max(1, run.end / 120), n = run.peers.length;
const add = (parent, name, attributes, words) => {
  const made = parent.appendChild(document.createElementNS(SVG, name));
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (words !== undefined) made.textContent = words;
  return made;
};
const svg = add(ring, 'svg', {viewBox: '0 0 420 300', role: 'img', 'aria-label': 'The swarm now'});
const ties = add(svg, 'g', {});
const spot = (i, reach) => {
  const turn = 2 * Math.PI * i / n - Math.PI / 2;
  return [210 + reach * 1.1 * Math.cos(turn), 150 + reach * Math.sin(turn)];
};
const nodes = run.peers.map((peer, i) => {
  const [x, y] = spot(i, 104), [tx, ty] = spot(i, 128);
  const side = Math.abs(tx - 210) < 20 ? 'mid' : tx < 210 ? 'end' : 'start';
  if (n <= 40) add(svg, 'text', {x: tx, y: ty + 4, class: side + ' peer'}, peer.name);
  return add(svg, 'circle', {cx: x, cy: y, r: n > 24 ? 6 : 10});
});
const within = (spans, t) => spans.some(([a, b]) => a <= t && t < b);
const state = (peer, t) => {
  if (!within(peer.lives, t)) return 'gone';
  const hurt = peer.hurts.filter(([, a, b]) => a <= t && t < b).map(([kind]) => kind);
  return ['frozen', 'far', 'sick'].find(kind => hurt.includes(kind)) || 'up';
};
const words = {
  up: 'up', frozen: 'frozen', far: 'beyond the wall', sick: 'hindered', gone: 'not there',
};
const clock = s => Math.floor(s / 60) + ':' + String(Math.floor(s % 60)).padStart(2, '0');
const tell = pairs => {
  now.replaceChildren(...pairs.flatMap(([name, value]) => {
    const dt = document.createElement('dt'), dd = document.createElement('dd');
    dt.textContent = name; dd.textContent = value;
    return [dt, dd];
  }));
};
const show = () => {
  const t = run.end * slider.value / slider.max;
  const x = run.left + run.width * t / run.end;
  cursor.setAttribute('x1', x); cursor.setAttribute('x2', x);
  const count = {};
  run.peers.forEach((peer, i) => {
    const is = state(peer, t);
    count[is] = (count[is] || 0) + 1;
    nodes[i].setAttribute('class', 'is-' + is);
    nodes[i].style.fill = is === 'up' ? 'var(--peer-' + i % 8 + ')' : '';
  });
  ties.replaceChildren();
  let met = 0;
  for (const [at, a, b] of run.met) {
    if (at > t) break;
    met += 1;
    if (at <= t - recent) continue;
    const [ax, ay] = spot(a, 104), [bx, by] = spot(b, 104);
    const fade = 1 - (t - at) / recent;
    add(ties, 'line', {x1: ax, y1: ay, x2: bx, y2: by, class: 'meets', 'stroke-opacity': fade});
  }
  const bin = Math.min(run.steps.length - 1, Math.floor(t / run.end * run.steps.length));
  let last = bin;
  while (last > 0 && run.loss[last] === null) last -= 1;
  const loss = run.loss[last];
  const who = Object.keys(words).filter(k => count[k]).map(k => count[k] + ' ' + words[k]);
  tell([
    ['Time', clock(t) + (t > run.trained ? ', consensus' : '')],
    ['Peers', who.join(', ')],
    ['Steps so far', String(run.steps[bin])],
    ['Meetings so far', met + (run.thinned > 1 ? ' of every ' + run.thinned : '')],
    ['Training loss', loss === null ? '-' : loss.toFixed(3)],
  ]);
};
let timer = 0;
const stop = () => { clearInterval(timer); timer = 0; button.textContent = 'play'; };
button.addEventListener('click', () => {
  if (timer) { stop(); return; }
  if (slider.value === slider.max) slider.value = 0;
  button.textContent = 'stop';
  timer = setInterval(() => {
    slider.value = Number(slider.value) + 2;
    show();
    if (slider.value === slider.max) stop();
  }, 50);
});
slider.addEventListener('input', show);
show();
})();
"""
