// Node.js for one context: cells are evaluated as its REPL does (top-level await, declarations that stay). The path of
// each, as a line of JSON, comes on stdin; what happened goes to $PADDOCK_CONTROL, a line of JSON each.
'use strict'
const fs = require('node:fs')
const { PassThrough, Writable } = require('node:stream')
const readline = require('node:readline')
const repl = require('node:repl')
const util = require('node:util')

const control = Number(process.env.PADDOCK_CONTROL)
delete process.env.PADDOCK_CONTROL

const FORMATS = {
  'text/plain': 'text', 'text/html': 'html', 'text/markdown': 'markdown', 'image/svg+xml': 'svg', 'image/png': 'png', 'image/jpeg': 'jpeg',
  'application/pdf': 'pdf', 'text/latex': 'latex', 'application/json': 'json', 'application/javascript': 'javascript',
}

const LINE_MAX = 30 << 20 // whoever reads it takes no longer ones

function say(event) {
  let line = Buffer.from(JSON.stringify(event) + '\n')
  if (line.length > LINE_MAX) {
    const value = `a result of ${line.length} bytes: at most ${LINE_MAX} are taken`
    line = Buffer.from(JSON.stringify({ type: 'error', name: 'ResultTooLarge', value, traceback: '' }) + '\n')
  }
  for (let at = 0; at < line.length;) at += fs.writeSync(control, line, at)
}

// An object may say itself how it is shown, as in other notebooks: [Symbol.for('Jupyter.display')]() gives MIME types and data.
async function show(value) {
  const event = { type: 'result', is_main_result: true }
  const bundle = value?.[Symbol.for('Jupyter.display')]
  event.text = typeof value === 'string' ? value : util.inspect(value)
  if (typeof bundle === 'function')
    for (const [mime, data] of Object.entries(await bundle.call(value))) event[FORMATS[mime] ?? mime] = data
  say(event)
}

function fail(error) {
  const known = error instanceof Error || util.types.isNativeError(error)
  say({
    type: 'error', name: known ? error.name : 'Error', value: known ? error.message : util.inspect(error),
    traceback: known ? error.stack : util.inspect(error),
  })
}

// What it prints for a person is not wanted.
const output = new Writable({ write: (text, encoding, done) => done() })
const server = repl.start({ prompt: '', input: new PassThrough(), output, terminal: false, useGlobal: true, breakEvalOnSigint: true })
let settle = null // of the cell that runs: its error, or its value
const onInterrupt = () => { if (settle) server.emit('SIGINT') }
process.on('SIGINT', onInterrupt)

// The REPL evaluates in a domain and hands errors to that, also those that a timer of an earlier cell throws.
function onError(error) {
  if (settle) settle(error)
  else process.stderr.write(`Uncaught ${util.inspect(error)}\n`)
}
server._domain.removeAllListeners('error')
server._domain.on('error', onError)

async function run({ code, env }) {
  const before = Object.keys(env).map(name => [name, process.env[name]])
  Object.assign(process.env, env)
  try {
    const { error, failed, value } = await new Promise(resolve => {
      settle = error => resolve({ error, failed: true })
      // While it does not wait, a watchdog of Node's takes the signal, and must be the only one.
      process.removeListener('SIGINT', onInterrupt)
      server.eval(code + '\n', server.context, 'cell', (error, value) => resolve({ error, failed: error !== null && error !== undefined, value }))
      process.on('SIGINT', onInterrupt)
    })
    if (failed) fail(error instanceof repl.Recoverable ? error.err : error)
    else if (value !== undefined) await show(value)
  } catch (error) {
    fail(error) // its own way to be shown threw
  } finally {
    settle = null
    for (const [name, value] of before) value === undefined ? delete process.env[name] : process.env[name] = value
  }
}

// Pipes take what is printed when they have room for it.
const printed = stream => new Promise(resolve => stream.write('', resolve))

async function serve(line) {
  await run(JSON.parse(fs.readFileSync(JSON.parse(line), 'utf8')))
  await Promise.all([printed(process.stdout), printed(process.stderr)])
  say({ type: 'done' })
}

let last = Promise.resolve()
readline.createInterface({ input: process.stdin }).on('line', line => {
  last = last.then(() => serve(line))
}).on('close', () => process.exit(0))
say({ type: 'done' })
