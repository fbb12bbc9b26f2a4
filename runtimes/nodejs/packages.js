// package.json, by npm: once per version, in a directory of its own whose node_modules
// becomes /function/node_modules, where both require and import look.
//
// npm's settings are the operator's: npmrc and npm_config_* as the sandbox's environment has
// them, but for what would lead it elsewhere.  What npm prints is the build's log as it is;
// its standard error passes through here, because the reason that the function's owner is
// told stands there.
'use strict';
const fs = require('fs');
const { spawn } = require('child_process');
const { Failure } = require('./failure.js');
const { readPackage } = require('./check.js');

const LOCKS = ['package-lock.json', 'npm-shrinkwrap.json'];
const COPIED = ['package.json', '.npmrc', ...LOCKS]; // npm may write to these
// They beat what the operator's files and variables say.
const OPTIONS = ['--omit=dev', '--global=false', '--dry-run=false', '--package-lock-only=false', '--save=false',
  '--audit=false', '--fund=false', '--update-notifier=false', '--progress=false', '--logs-max=0', '--color=false'];

function hasAny(value) {
  return value !== null && typeof value === 'object' && Object.keys(value).length > 0;
}

// A package that brings its node_modules along is used as it is.
function areWanted(directory) {
  if (fs.existsSync(`${directory}/node_modules`)) return false;
  const p = readPackage(directory);
  return [p.dependencies, p.optionalDependencies, p.peerDependencies, p.workspaces].some(hasAny);
}

function findProgram(name) {
  return (process.env.PATH ?? '').split(':').map((d) => `${d}/${name}`).find((p) => fs.existsSync(p));
}

// What a package of the zip itself (file:lib, a workspace) needs is there by links.
function prepare(directory, work) {
  fs.mkdirSync(work);
  for (const name of fs.readdirSync(directory)) {
    if (COPIED.includes(name)) fs.writeFileSync(`${work}/${name}`, fs.readFileSync(`${directory}/${name}`));
    else fs.symlinkSync(`${directory}/${name}`, `${work}/${name}`);
  }
}

// npm's reasons: the lines that say something to somebody who does not sit at this machine.
function reasonOf(lines) {
  const said = lines.map((line) => /^npm (?:ERR!|error)\s?(.*)$/.exec(line)?.[1]?.trim())
    .filter((text) => text && !/^(?:code|errno|syscall|path|signal|at |A complete log|\/.*\.log$)/.test(text));
  return [...new Set(said)].slice(0, 4).join('; ').slice(0, 1000);
}

// Its exit status, signal or 'timeout', and the last lines of its standard error.  A child
// that holds the pipe longer than npm lives does not hold up the build.
function runNpm(npm, args, work, scratch, timeout_s) {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, HOME: scratch, TMPDIR: scratch, npm_config_cache: `${scratch}/npm-cache` };
    const p = spawn(npm, args, { cwd: work, env, detached: true, stdio: ['ignore', 'inherit', 'pipe'] });
    let text = '';
    let timedOut = false;
    const killAll = () => {
      try {
        process.kill(-p.pid, 'SIGKILL');
      } catch {
        // all of it is gone
      }
    };
    const timer = setTimeout(() => {
      timedOut = true;
      killAll();
    }, timeout_s * 1000);
    p.stderr.on('data', (data) => {
      process.stderr.write(data);
      text = (text + data).slice(-65536);
    });
    p.on('error', reject);
    p.on('exit', (code, signal) => setImmediate(() => { // after what is in the pipe was read
      clearTimeout(timer);
      killAll();
      p.stderr.destroy();
      resolve({ how: timedOut ? 'timeout' : code ?? signal, lines: text.split('\n') });
    }));
  });
}

// The directory node_modules below scratch, or null when there is nothing in it.
async function install(directory, scratch, timeout_s, say, more = []) {
  const npm = findProgram('npm');
  const work = `${scratch}/npm`;
  const verb = LOCKS.some((name) => fs.existsSync(`${directory}/${name}`)) ? 'ci' : 'install';
  if (!npm) throw new Failure('PackagesFailed', 'npm could not install package.json: this image has no npm');
  prepare(directory, work);
  say(`npm ${verb}`);
  const { how, lines } = await runNpm(npm, [verb, ...OPTIONS, ...more], work, scratch, timeout_s);
  if (how === 'timeout') throw new Failure('PackagesFailed', `npm did not finish within ${timeout_s} seconds`);
  if (how !== 0) {
    throw new Failure('PackagesFailed', `npm could not install package.json: ${reasonOf(lines)
      || `it ended with ${typeof how === 'number' ? 'status' : 'signal'} ${how}`}`);
  }
  fs.rmSync(`${scratch}/npm-cache`, { recursive: true, force: true });
  return fs.existsSync(`${work}/node_modules`) ? `${work}/node_modules` : null;
}

module.exports = { areWanted, install };
