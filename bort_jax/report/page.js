'use strict';
// The state is one choice of each kind. It stands in the address, so that a
// view can be linked to: report.html#picture=3&network=bort&class=2&method=lrp
const data = JSON.parse(document.getElementById('data').textContent);
const controls = [...document.querySelectorAll('[data-pick]')];
const slot = (name) => document.querySelector(`[data-show="${name}"]`);
const uri = (png) => 'data:image/png;base64,' + png;
const find = (list, name) => list.find((one) => one.name === name);

const state = {
  picture: '0',
  network: data.networks[0].name,
  class: null,
  method: data.methods[0].name,
};

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) {
    if (given.has(name)) state[name] = given.get(name);
  }
}

// Whatever an address asks for that does not exist gives way to what does.
function repair() {
  if (!Object.keys(data.pictures).includes(state.picture)) state.picture = '0';
  if (!find(data.networks, state.network)) state.network = data.networks[0].name;
  if (!find(data.methods, state.method)) state.method = data.methods[0].name;
  const { classes } = view();
  if (!classes.some((one) => String(one) === state.class)) {
    state.class = String(classes[0]);
  }
}

const view = () => data.views[state.network][state.picture];
const percent = (share) => (100 * share).toFixed(1) + ' %';

function fillClasses() {
  const { classes, probabilities } = view();
  const { label } = data.pictures[state.picture];
  const options = classes.map((one, i) => {
    const option = document.createElement('option');
    option.value = String(one);
    const note = one === label ? ', its label' : '';
    option.textContent = `${data.classes[one]} (${percent(probabilities[i])}${note})`;
    return option;
  });
  document.querySelector('select[data-pick="class"]').replaceChildren(...options);
}

function showControls() {
  fillClasses();
  for (const control of controls) {
    const chosen = state[control.dataset.pick];
    if (control.type === 'radio') control.checked = control.value === chosen;
    else control.value = chosen;
  }
}

// An image, or the reason why there is none.
function show(name, what, alt, caption) {
  const place = slot(name);
  const image = place.querySelector('img');
  const why = place.querySelector('.why');
  image.hidden = !what.png;
  why.hidden = Boolean(what.png);
  why.textContent = what.why || '';
  if (what.png) {
    image.src = uri(what.png);
    image.alt = alt;
  } else {
    image.removeAttribute('src');
    image.alt = '';
  }
  const text = place.querySelector('figcaption');
  if (text) text.textContent = caption;
}

function showTiles(nth, words) {
  for (const method of data.methods) {
    const label = document.querySelector(`[data-tile="${CSS.escape(method.name)}"]`);
    const { png } = mapOf(method.name, nth);
    const image = label.querySelector('img');
    image.hidden = !png;
    label.querySelector('.none').hidden = Boolean(png);
    if (png) image.src = uri(png);
    else image.removeAttribute('src');
    image.alt = png ? `${method.label}: ${words}` : '';
  }
}

function mapOf(method, nth) {
  const found = view().maps[method];
  return found.png ? { png: found.png[nth] } : found;
}

function render() {
  repair();
  showControls();
  const nth = view().classes.findIndex((one) => String(one) === state.class);
  const picture = data.pictures[state.picture];
  const network = find(data.networks, state.network).label;
  const method = find(data.methods, state.method);
  const kind = data.classes[state.class];
  const words = `${picture.name}, class ${kind}, network ${network}`;
  const predicted = data.classes[view().predicted];
  const label = picture.label === null ? '' : `, labelled ${data.classes[picture.label]}`;

  show('picture', picture, picture.name, `${picture.name}${label}; ${network} says ${predicted}.`);
  show('attribution', mapOf(state.method, nth), `${method.label} of ${words}`, method.about);
  show('backtracking', mapOf('backtrack', nth), `Backtracking of ${words}`,
    `The part of the picture that stands for class ${kind}: its logit run backwards.`);
  for (const way of data.ways) {
    const found = view().reconstructions[way.name];
    show(way.name, found, `${way.label} of ${picture.name}, network ${network}`, found.caption || '');
  }
  showTiles(nth, words);
  const curves = data.curves[state.network][state.method];
  show('curves', curves, `Deletion and insertion curves of ${method.label}, network ${network}`, curves.caption || '');
  slot('status').textContent = `${method.label}: ${words}.`;
}

for (const control of controls) {
  control.addEventListener('change', () => {
    state[control.dataset.pick] = control.value;
    render();
    history.replaceState(null, '', '#' + new URLSearchParams(state));
  });
}
addEventListener('hashchange', () => {
  readAddress();
  render();
});
readAddress();
render();
