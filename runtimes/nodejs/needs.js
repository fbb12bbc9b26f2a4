// What decides which packages npm installs for a package.json, as one text: with the same text
// they are the same, so that functions can share them (pratai-runtime(7), "dependencies").
//
// Only of packages of a registry or behind a URL, and where nothing of the function's own runs
// or configures npm.  Another is installed with the function there, for itself; so is one with a
// package that has an install script, since nobody can tell what that looks at.
'use strict';
const fs = require('fs');
const { readPackage } = require('./check.js');

const FORMAT = 1; // rises when what is made of the same text changes
const TEXT_MAX = 4 << 20;
const LOCKS = ['npm-shrinkwrap.json', 'package-lock.json']; // the first is the one that npm takes
const LISTS = ['dependencies', 'optionalDependencies', 'peerDependencies', 'devDependencies'];
const MEMBERS = [...LISTS, 'peerDependenciesMeta', 'bundleDependencies', 'bundledDependencies', 'overrides', 'engines',
  'devEngines', 'os', 'cpu', 'libc'];
const SCRIPTS = ['preinstall', 'install', 'postinstall', 'preprepare', 'prepare', 'postprepare', 'prepublish'];

// A range, a tag, an alias of those, a URL; "$name" in overrides is one of the others.
function isOfARegistry(spec) {
  return typeof spec === 'string' && (/^https?:\/\/\S+$/.test(spec)
    || (/^(?:npm:(?:@[\w.-]+\/)?[\w.-]+@?)?[^/:@]*$/.test(spec) && !/^\s*\.|\.(?:tgz|tar|gz)$/i.test(spec)));
}

function areOfARegistry(value) {
  if (value === undefined || value === null) return true;
  return typeof value === 'object' ? Object.values(value).every(areOfARegistry) : isOfARegistry(value);
}

// Its packages, of any of the lock's three versions.
function isOfRegistries(lock) {
  const all = (value) => value === null || typeof value !== 'object' || (value.link !== true && value.hasInstallScript !== true
    && ![value.resolved, value.version].some((v) => typeof v === 'string' && /^(?:file|git|link|github|gitlab)[:+]/.test(v))
    && [value.dependencies, value.packages].every((list) => Object.values(list ?? {}).every(all)));
  return all(lock);
}

// Sorted, so that the order of members makes no difference.
function sorted(value) {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(sorted);
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

// undefined: none; null: not one that can be shared.
function readLock(directory) {
  const name = LOCKS.find((n) => fs.existsSync(`${directory}/${n}`));
  if (!name) return undefined;
  let lock;
  try {
    lock = JSON.parse(fs.readFileSync(`${directory}/${name}`, 'utf8'));
  } catch {
    return null; // npm says so
  }
  if (lock === null || typeof lock !== 'object' || !isOfRegistries(lock)) return null;
  for (const root of [lock, lock.packages?.['']]) {
    delete root?.name;
    delete root?.version;
    delete root?.license;
  }
  return lock;
}

// A Buffer, or null.
function of(directory) {
  const p = readPackage(directory);
  if (p.workspaces || SCRIPTS.some((name) => p.scripts?.[name])
    || ['.npmrc', 'binding.gyp'].some((name) => fs.existsSync(`${directory}/${name}`))
    || ![...LISTS, 'overrides'].every((name) => areOfARegistry(p[name]))) return null;
  const lock = readLock(directory);
  if (lock === null) return null;
  const wanted = Object.fromEntries(MEMBERS.filter((name) => name in p).map((name) => [name, p[name]]));
  process.report.excludeNetwork = true;
  const text = Buffer.from(JSON.stringify(sorted({ format: FORMAT, package: wanted, lock, node: process.version,
    modules: process.versions.modules, platform: process.platform, arch: process.arch,
    libc: process.report.getReport().header.glibcVersionRuntime })));
  return text.length <= TEXT_MAX ? text : null;
}

// Makes the directory, and in it what of() was told.
function unpack(text, directory) {
  const needs = JSON.parse(text);
  fs.mkdirSync(directory);
  fs.writeFileSync(`${directory}/package.json`, JSON.stringify(needs.package));
  if (needs.lock) fs.writeFileSync(`${directory}/package-lock.json`, JSON.stringify(needs.lock));
}

// Of what npm has installed; it keeps a lock of that.
function haveScripts(modules) {
  const lock = JSON.parse(fs.readFileSync(`${modules}/.package-lock.json`, 'utf8'));
  return Object.values(lock.packages).some((p) => p.hasInstallScript);
}

module.exports = { of, unpack, haveScripts };
