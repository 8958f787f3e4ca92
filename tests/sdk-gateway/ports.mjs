// Ports of a sandbox under getHost(), over TLS with a wildcard certificate; traffic tokens and Host names.
import { Sandbox } from 'e2b'
import { assert, done, test, thrown } from './tap.mjs'

const SERVER = `
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', int(sys.argv[1])), Handler).serve_forever()
`

async function serve(sandbox, port) {
  await sandbox.files.write('/tmp/server.py', SERVER)
  await sandbox.commands.run(`python3 /tmp/server.py ${port}`, { background: true, timeoutMs: 0 })
  for (let i = 0; i < 100; i++) {
    if ((await sandbox.commands.run(`python3 -c 'import socket; socket.create_connection(("127.0.0.1", ${port}))'; true`)).stderr === '') return
  }
}

const ask = (sandbox, port, headers = {}) => fetch(`https://${sandbox.getHost(port)}/`, { headers })

const open = await Sandbox.create({ timeoutMs: 300_000 })
await serve(open, 3000)

await test('getHost', async () => {
  assert.match(open.getHost(3000), new RegExp(`^3000-${open.sandboxId}\\.`))
  const answer = await ask(open, 3000, { 'X-Own': '1', 'X-Forwarded-For': '6.6.6.6' })
  assert.equal(answer.status, 200)
  const seen = await answer.json()
  assert.equal(seen.Host, open.getHost(3000))
  assert.equal(seen['X-Forwarded-For'], '127.0.0.1')
  assert.equal(seen['X-Forwarded-Proto'], 'https')
  assert.equal(Object.entries(seen).find(([name]) => name.toLowerCase() === 'x-own')[1], '1')
})

await test('a port that nothing listens on', async () => {
  const answer = await ask(open, 3001)
  assert.equal(answer.status, 502)
  assert.deepEqual(await answer.json(), { sandboxId: open.sandboxId, message: 'The sandbox is running but port is not open', port: 3001, code: 502 })
  const page = await ask(open, 3001, { Accept: 'text/html' })
  assert.match(await page.text(), /Nothing listens/)
})

await test('ports that are never opened', async () => {
  assert.equal((await ask(open, 22)).status, 502)
  assert.equal((await (await ask(open, 22)).json()).message, 'The sandbox was not found')
})

await test('the network of getInfo', async () => {
  assert.equal((await open.getInfo()).network?.allowPublicTraffic, true)
  // Its ports are open without it, but for the code interpreter's.
  assert.equal((await ask(open, 49999)).status, 403)
  assert.equal((await ask(open, 49999, { 'e2b-traffic-access-token': open.trafficAccessToken })).status, 502)
})

await test('allowPublicTraffic: false', async () => {
  const closed = await Sandbox.create({ timeoutMs: 300_000, network: { allowPublicTraffic: false } })
  await serve(closed, 3000)
  assert.match(closed.trafficAccessToken, /^[0-9a-f]{64}$/)
  const good = { 'e2b-traffic-access-token': closed.trafficAccessToken }
  const answer = await ask(closed, 3000, good)
  assert.equal(answer.status, 200)
  assert.ok(!JSON.stringify(await answer.json()).includes(closed.trafficAccessToken), 'the application must not see it')
  for (const token of [undefined, '', '0'.repeat(64), closed.trafficAccessToken.slice(1), closed.trafficAccessToken + '0']) {
    const refused = await ask(closed, 3000, token === undefined ? {} : { 'e2b-traffic-access-token': token })
    assert.equal(refused.status, 403, token)
    assert.equal((await refused.json()).sandboxId, closed.sandboxId)
  }
  // It opens ports, and nothing else; and the agent's port needs none.
  assert.equal((await closed.commands.run('echo x')).stdout, 'x\n')
  assert.equal((await closed.getInfo()).network.allowPublicTraffic, false)
  const again = await Sandbox.connect(closed.sandboxId)
  assert.equal(again.trafficAccessToken, closed.trafficAccessToken)
  await closed.kill()
})

await test('maskRequestHost', async () => {
  const masked = await Sandbox.create({ timeoutMs: 300_000, network: { maskRequestHost: 'localhost:${PORT}' } })
  await serve(masked, 3000)
  const seen = await (await ask(masked, 3000)).json()
  assert.equal(seen.Host, 'localhost:3000')
  assert.equal(seen['X-Forwarded-Host'], masked.getHost(3000))
  assert.equal((await masked.getInfo()).network.maskRequestHost, 'localhost:${PORT}')
  await masked.kill()
  assert.equal((await thrown(() => Sandbox.create({ network: { maskRequestHost: 'a b' } }))).name, 'InvalidArgumentError'.replace('InvalidArgument', 'Sandbox'))
})

await test('paused and resumed', async () => {
  await open.pause()
  assert.equal((await ask(open, 3000)).status, 502)
  await Sandbox.connect(open.sandboxId)
  assert.equal((await ask(open, 3000)).status, 200)
})

await test('after the end', async () => {
  await open.kill()
  const answer = await ask(open, 3000)
  assert.equal(answer.status, 502)
  assert.deepEqual(await answer.json(), { sandboxId: open.sandboxId, message: 'The sandbox was not found', code: 502 })
})

done()
