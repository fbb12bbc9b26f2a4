// The file that a function begins with, and how it is loaded.
'use strict';
const fs = require('fs');
const { Failure } = require('./failure.js');

const NAMES = ['main.js', 'main.mjs', 'main.cjs', 'index.js', 'index.mjs', 'index.cjs'];

function isFile(path) {
  try {
    return fs.statSync(path).isFile();
  } catch {
    return false;
  }
}

function find(directory) {
  const name = NAMES.find((n) => isFile(`${directory}/${n}`));
  if (name) return name;
  const inner = fs.readdirSync(directory).sort().find((d) => d !== 'node_modules'
    && NAMES.some((n) => isFile(`${directory}/${d}/${n}`)));
  const hint = inner
    ? ` (there is one in ${inner.slice(0, 100)}/: zip what is in that directory, not the directory)` : '';
  throw new Failure('NoMain', 'there is no main.js or index.js at the root of the zip' + hint);
}

// What node itself decides by.
function isModule(directory, name) {
  if (!name.endsWith('.js')) return name.endsWith('.mjs');
  try {
    return JSON.parse(fs.readFileSync(`${directory}/package.json`, 'utf8')).type === 'module';
  } catch {
    return false; // none, or one that node complains about by itself
  }
}

module.exports = { find, isModule };
