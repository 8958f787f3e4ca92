// What the SDK needs of a server to run a command, answered at once: the floor of its own cost.
//
//	node canned.mjs PORT        every command ends at once
//	node canned.mjs PORT spawn  every command is really started, on this machine and in no sandbox
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'

const [port, spawns] = process.argv.slice(2)
const SANDBOX = { sandboxID: 'i' + 'a'.repeat(20), templateID: 'base', alias: 'base', domain: '127.0.0.1', envdAccessToken: 'x', clientID: 'canned', envdVersion: '0.6.13',
  trafficAccessToken: null }

function envelope(flags, message) {
  const text = Buffer.from(JSON.stringify(message))
  const head = Buffer.alloc(5)
  head[0] = flags
  head.writeUInt32BE(text.length, 1)
  return Buffer.concat([head, text])
}

function run(response, body) {
  const end = () => {
    response.write(envelope(0, { event: { end: { exited: true, status: 'exit status 0' } } }))
    response.end(envelope(2, {}))
  }
  response.writeHead(200, { 'content-type': 'application/connect+json' })
  response.write(envelope(0, { event: { start: { pid: 7 } } }))
  if (!spawns) return end()
  const { cmd, args } = JSON.parse(body.subarray(5)).process
  spawn(cmd, args, { env: { PATH: process.env.PATH, HOME: '/nonexistent' } }).on('close', end)
}

createServer((request, response) => {
  const pieces = []
  request.on('data', piece => pieces.push(piece))
  request.on('end', () => {
    if (request.url === '/process.Process/Start') run(response, Buffer.concat(pieces))
    else if (request.method === 'DELETE') response.writeHead(204).end()
    else response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify(SANDBOX))
  })
}).listen(Number(port), '127.0.0.1')
