#!/bin/sh -e
# Make the stores in this folder anew, with vault(1)'s own programs: see README.md. Needs node (16 to 21) and npm.
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "$PAGEANTRY_NPM" ]; then
    ln -s "$PAGEANTRY_NPM" node_modules
else
    printf '%s' '{"private": true, "dependencies": {"vault": "0.3.0", "storeroom": "0.1.0"}, "overrides": {"when": "1.3.0"}}' \
        > package.json
    npm install --ignore-scripts --no-audit --no-fund --silent
fi

export VAULT_KEY='not so secret'
export NODE_OPTIONS=--no-deprecation

# v0.3: the program itself, which needs a file for each import.
cp "$here/settings.json" settings.json
VAULT_PATH=$work/v0.3 node node_modules/vault/bin/vault --import settings.json
mv v0.3 "$here/v0.3"

# v0.2: never published; its format is written here with the same functions of node that it used.
node - settings.json "$here/v0.2" <<'HERE'
const crypto = require('crypto'), fs = require('fs');
const [source, target] = process.argv.slice(2), password = process.env.VAULT_KEY;
const salt = 'e87eb0f4-34cb-46b9-93ad-766c5ab063e7';
const key = (size) => crypto.pbkdf2Sync(password, salt, 16, size, 'sha1').toString('hex');
const iv = crypto.randomBytes(16);
const secret = Buffer.concat([iv, Buffer.from(key(4))]).toString('base64');
const cipher = crypto.createCipher('aes256', secret);
const payload = cipher.update(fs.readFileSync(source, 'utf8'), 'utf8', 'base64') + cipher.final('base64');
const message = Buffer.concat([iv, Buffer.from(payload)]);
const mac = crypto.createHmac('sha256', key(8)).update(message.toString('base64')).digest('hex');
fs.writeFileSync(target, Buffer.concat([message, Buffer.from(mac)]).toString('base64'));
HERE

# storeroom: its own file adapter fails with later versions of what it depends on, so the files are written here.
rm -rf "$here/storeroom"
mkdir "$here/storeroom"
node - settings.json "$here/storeroom" <<'HERE'
const fs = require('fs'), path = require('path');
const storeroom = require(path.resolve('node_modules/storeroom'));
const [source, target] = process.argv.slice(2), settings = JSON.parse(fs.readFileSync(source, 'utf8'));
const file = (name) => path.join(target, name);
const adapter = {
  read: async (name) => fs.existsSync(file(name)) ? fs.readFileSync(file(name), 'utf8') : null,
  write: async (name, data) => data === null ? fs.rmSync(file(name), {force: true}) : fs.writeFileSync(file(name), data),
};
const store = storeroom.createStore({password: process.env.VAULT_KEY, adapter});
(async () => {
  await store.put('/global', settings.global);
  for (const [name, entry] of Object.entries(settings.services)) await store.put('/services/' + name, entry);
  await store.put('/services/removed', {length: 1});
  await store.remove('/services/removed');
})();
HERE
chmod -R go-w,a+rX "$here"
