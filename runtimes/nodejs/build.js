// Makes a version of a JavaScript function ready (pratai-runtime(7)): checks it, and when its
// package.json names packages asks for network, has npm install them, and sends the layer.
// Without any the package is used as it is.
//
// No code of the user's runs in this process; npm and the install scripts of packages run in
// processes of their own, without the channel.  Standard output and standard error are the
// build's log, which the function's owner reads.
'use strict';
const { Channel } = require('./channel.js');
const { Failure, describe } = require('./failure.js');

function say(text) {
  console.log('pratai: ' + text);
}

async function build(root, channel) {
  const line = channel.readLine();
  if (line === null) return;
  const request = JSON.parse(line);
  const directory = root + '/function';
  if (request.type === 'dependencies') {
    await installNeeds(root, channel, request);
    return;
  }
  require('./check.js').check(directory, say);
  const packages = require('./packages.js');
  const wanted = packages.areWanted(directory);
  if (wanted && !request.network) {
    const needs = require('./needs.js').of(directory);
    if (!needs) {
      channel.send({ v: 1, type: 'network' });
      return;
    }
    require('./layer.js').plan([[directory, 'function']]); // what it refuses
    channel.send({ v: 1, type: 'dependencies', bytes: needs.length }, needs);
    channel.send({ v: 1, type: 'result', ok: true });
    return;
  }
  const modules = wanted ? await packages.install(directory, root + '/tmp', timeoutOf(request), say) : null;
  if (!modules) {
    channel.send({ v: 1, type: 'result', ok: true });
    return;
  }
  sendLayer(channel, [[directory, 'function'], [modules, 'function/node_modules']]);
}

// The layer below those of all versions that need the same; no package is here.
async function installNeeds(root, channel, request) {
  const needs = require('./needs.js');
  const directory = root + '/tmp/needs';
  needs.unpack(channel.readBytes(request.bytes), directory);
  const modules = await require('./packages.js').install(directory, root + '/tmp', timeoutOf(request), say,
    ['--ignore-scripts']);
  if (modules && needs.haveScripts(modules)) {
    say('a package has an install script, which may look at the function: installed again, with it');
    channel.send({ v: 1, type: 'network' });
  } else if (modules) {
    sendLayer(channel, [[modules, 'function/node_modules']]);
  } else {
    channel.send({ v: 1, type: 'result', ok: true });
  }
}

function timeoutOf(request) {
  return request.requirements_timeout_s ?? 600;
}

function sendLayer(channel, trees) {
  const layer = require('./layer.js');
  const entries = layer.plan(trees);
  channel.send({ v: 1, type: 'layer', ok: true });
  layer.send(entries, (data) => channel.write(data));
  say(`${entries.size} files in all`);
}

async function main() {
  const channel = new Channel();
  try {
    await build(process.argv[2] ?? '', channel);
    process.reallyExit(0);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    say(error.message);
    channel.send({ v: 1, type: 'result', ok: false, error: describe(error) });
    process.reallyExit(1);
  }
}

main();
