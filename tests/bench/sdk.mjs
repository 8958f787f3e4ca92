// The JavaScript SDK against several servers, in turns. Prints JSON: seconds of each call, by server and by what was called.
import { createRequire } from 'node:module'
const { Sandbox } = createRequire(process.env.MODULES + '/package.json')('e2b')

const { apiKey, rounds, size, fileRounds, servers, nginx } = JSON.parse(process.argv[2])
const seen = {}
const note = (what, began) => (seen[what] ??= []).push((performance.now() - began) / 1000)

const sandboxes = {}
for (const [name, url] of Object.entries(servers)) {
  sandboxes[name] = await Sandbox.create('base', { apiKey, apiUrl: url, sandboxUrl: url, timeoutMs: 300_000 })
  for (let i = 0; i < 10; i++) await sandboxes[name].commands.run('true')
}
for (let i = 0; i < rounds; i++) {
  for (const [name, sandbox] of Object.entries(sandboxes)) {
    const began = performance.now()
    await sandbox.commands.run('true')
    note('run ' + name, began)
  }
}
const data = new Uint8Array(size).fill(120)
const paddock = sandboxes.paddock
for (let i = 0; i <= fileRounds; i++) {
  let began = performance.now()
  const served = await (await fetch(nginx)).arrayBuffer()
  if (i) note('nginx', began)
  began = performance.now()
  await paddock.files.write('/tmp/bench', data.buffer)
  if (i) note('upload', began)
  began = performance.now()
  const read = await paddock.files.read('/tmp/bench', { format: 'bytes' })
  if (i) note('download', began)
  if (read.length !== size || served.byteLength !== size) throw new Error(`${read.length} and ${served.byteLength} bytes of ${size}`)
}
for (const sandbox of Object.values(sandboxes)) await sandbox.kill()
console.log(JSON.stringify(seen))
process.exit(0)
