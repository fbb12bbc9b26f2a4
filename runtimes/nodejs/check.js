// What can be told of a function without running it, so that a mistake is told when it is
// created and not at its first event: there is a file to begin with, it parses, it exports
// something.
'use strict';
const fs = require('fs');
const { spawnSync } = require('child_process');
const { Failure } = require('./failure.js');
const { find } = require('./entry.js');

// package.json as an object, {} without one.
function readPackage(directory) {
  const path = `${directory}/package.json`;
  if (!fs.existsSync(path)) return {};
  let value;
  try {
    value = JSON.parse(fs.readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Failure('BadPackage', `package.json cannot be read: ${error.message}`);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new Failure('BadPackage', 'package.json is not an object');
  }
  return value;
}

function checkSyntax(path, name) {
  const p = spawnSync(process.execPath, ['--check', path], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  if (p.status === 0) return;
  const line = /^(?:file:\/\/)?\/.*:(\d+)$/m.exec(p.stderr)?.[1];
  const what = /^\w*Error(?: \[\w+\])?: (.*)$/m.exec(p.stderr)?.[1] ?? p.stderr.trim().split('\n').pop();
  throw new Failure('SyntaxError', `${name}${line ? `, line ${line}` : ''}: ${what}`);
}

function check(directory, say) {
  const name = find(directory);
  const path = `${directory}/${name}`;
  readPackage(directory);
  checkSyntax(path, name);
  // Whatever exports something has one of these words.
  if (!/\b(?:exports|export|module|this|globalThis|require|eval|Function)\b/.test(fs.readFileSync(path, 'utf8'))) {
    throw new Failure('NoMain', `${name} exports no main: write exports.main = (payload, context) => …`);
  }
  say(`the function is main in ${name}`);
}

module.exports = { check, readPackage };
