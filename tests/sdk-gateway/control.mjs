// The control plane through e2b's own SDK.
import { Sandbox, Template, SandboxNotFoundError } from 'e2b'
import { assert, done, test, thrown } from './tap.mjs'

const sandbox = await Sandbox.create({ metadata: { 'a b': 'c&d' }, envs: { FOO: 'bar' }, timeoutMs: 120_000 })

await test('create gives an id, a domain and a version', async () => {
  assert.match(sandbox.sandboxId, /^i[a-z0-9]{20}$/)
  assert.match(sandbox.sandboxDomain, /^paddock\.test(:\d+)?$/)
})

await test('getInfo shows what was asked for', async () => {
  const info = await sandbox.getInfo()
  assert.equal(info.sandboxId, sandbox.sandboxId)
  assert.equal(info.name, 'base')
  assert.deepEqual(info.metadata, { 'a b': 'c&d' })
  assert.equal(info.state, 'running')
  assert.equal(Math.round((info.endAt - info.startedAt) / 1000), 120)
  assert.equal(info.allowInternetAccess, false)
})

await test('setTimeout extends and shortens', async () => {
  await sandbox.setTimeout(300_000)
  const longer = (await sandbox.getInfo()).endAt
  await sandbox.setTimeout(60_000)
  const shorter = (await sandbox.getInfo()).endAt
  assert.ok(Math.abs(longer - Date.now() - 300_000) < 5000, String(longer))
  assert.ok(Math.abs(shorter - Date.now() - 60_000) < 5000, String(shorter))
})

await test('connect extends and never shortens', async () => {
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 400_000 })
  const longer = (await sandbox.getInfo()).endAt
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
  assert.equal(+(await sandbox.getInfo()).endAt, +longer)
})

await test('list filters by metadata, state and time', async () => {
  const ids = async query => (await Sandbox.list({ query }).nextItems()).map(s => s.sandboxId)
  assert.deepEqual(await ids({ metadata: { 'a b': 'c&d' } }), [sandbox.sandboxId])
  assert.deepEqual(await ids({ metadata: { 'a b': 'other' } }), [])
  assert.deepEqual(await ids({ state: ['paused'] }), [])
  assert.deepEqual(await ids({ state: ['running'] }), [sandbox.sandboxId])
  const { startedAt } = await sandbox.getInfo()
  assert.deepEqual(await ids({ startedAfter: startedAt }), [sandbox.sandboxId])
  assert.deepEqual(await ids({ startedAfter: new Date(+startedAt + 1000) }), [])
})

await test('list has pages, the newest first', async () => {
  const second = await Sandbox.create({ timeoutMs: 60_000 })
  try {
    const pages = Sandbox.list({ limit: 1 })
    const first = await pages.nextItems()
    assert.deepEqual(first.map(s => s.sandboxId), [second.sandboxId])
    assert.equal(pages.hasNext, true)
    const rest = await pages.nextItems()
    assert.deepEqual(rest.map(s => s.sandboxId), [sandbox.sandboxId])
  } finally {
    await second.kill()
  }
})

await test('metrics of now and before', async () => {
  const samples = await sandbox.getMetrics()
  const last = samples.at(-1)
  assert.equal(last.memTotal, 512 * 1024 * 1024)
  assert.ok(last.memUsed > 0 && last.memUsed < last.memTotal && last.memCache >= 0 && last.diskTotal > last.diskUsed)
  assert.ok(Math.abs(last.timestamp - Date.now()) < 10_000)
  assert.deepEqual(await sandbox.getMetrics({ start: new Date(0), end: new Date(1000) }), [])
  let past
  for (let i = 0; i < 60 && !(past?.length > 1); i++) {
    await new Promise(resolve => setTimeout(resolve, 250))
    past = await sandbox.getMetrics({ end: new Date(Date.now() - 1000) })
  }
  assert.ok(past.length > 1 && past.every((sample, i) => !i || sample.timestamp > past[i - 1].timestamp))
  assert.ok(past.every(sample => sample.timestamp < Date.now()))
})

await test('metrics of several, and of the agent inside', async () => {
  const ask = (query, headers) => fetch(`${process.env.E2B_API_URL}${query}`, { headers })
  const key = { 'X-API-Key': process.env.E2B_API_KEY }
  const { sandboxes } = await (await ask(`/sandboxes/metrics?sandbox_ids=${sandbox.sandboxId},${'i'.padEnd(21, 'a')}`, key)).json()
  assert.deepEqual(Object.keys(sandboxes), [sandbox.sandboxId])
  assert.ok(sandboxes[sandbox.sandboxId].memUsed > 0)
  assert.equal((await ask('/sandboxes/metrics', key)).status, 400)
  assert.equal((await ask(`/sandboxes/${sandbox.sandboxId}/metrics?start=x`, key)).status, 400)
  const route = { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49983' }
  const inside = await ask('/metrics', { ...route, 'X-Access-Token': sandbox.envdAccessToken })
  const now = await inside.json()
  assert.equal(now.mem_total, 512 * 1024 * 1024)
  assert.ok(now.mem_used > 0 && Math.abs(now.ts - Date.now() / 1000) < 5 && now.disk_total > 0)
  assert.equal((await ask('/metrics', route)).status, 401)
  assert.equal((await ask('/metrics', { ...route, 'X-Access-Token': 'f'.repeat(64) })).status, 502)
})

await test('logs are of its processes', async () => {
  const ask = async (path, query = '') => {
    const answer = await fetch(`${process.env.E2B_API_URL}${path}/${sandbox.sandboxId}/logs${query}`, { headers: { 'X-API-Key': process.env.E2B_API_KEY } })
    return answer.ok ? answer.json() : { status: answer.status, ...await answer.json() }
  }
  await sandbox.commands.run('echo first')
  await sandbox.commands.run('exit 3').catch(() => 0)
  const { logs, logEntries } = await ask('/sandboxes')
  assert.equal(logs.length, 4)
  assert.deepEqual(logs.map(l => JSON.parse(l.line).message),
    ['process started', 'process exited with status 0', 'process started', 'process exited with status 3'])
  assert.match(JSON.parse(logs[0].line).cmd, /echo first/)
  assert.deepEqual(logEntries.map(e => e.level), ['info', 'info', 'info', 'warn'])
  assert.ok(logs.every(l => Math.abs(new Date(l.timestamp) - Date.now()) < 60_000))
  assert.equal((await ask('/sandboxes', '?limit=1')).logs.length, 1)
  assert.deepEqual((await ask('/sandboxes', `?start=${Date.now() + 60_000}`)).logs, [])
  assert.deepEqual((await ask('/v2/sandboxes', '?level=warn')).logs.map(e => e.message), ['process exited with status 3'])
  assert.deepEqual((await ask('/v2/sandboxes', '?direction=backward&limit=2')).logs, logEntries.slice(2).reverse())
  assert.deepEqual((await ask('/v2/sandboxes', '?search=first')).logs, logEntries.slice(0, 2))
  for (const [path, query] of [['/sandboxes', '?limit=x'], ['/sandboxes', '?start=-1'], ['/v2/sandboxes', '?level=loud'], ['/v2/sandboxes', '?direction=up']])
    assert.equal((await ask(path, query)).status, 400, query)
})

await test('pause and connect again', async () => {
  assert.equal(await sandbox.pause(), true)
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal(await sandbox.pause(), false)
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 120_000 })
  assert.equal((await sandbox.getInfo()).state, 'running')
})

await test('a timeout may pause, and a use resumes', async () => {
  const short = await Sandbox.create({ timeoutMs: 2000, lifecycle: { onTimeout: 'pause', autoResume: true } })
  const command = await short.commands.run('sleep 1000', { background: true })
  await new Promise(resolve => setTimeout(resolve, 4000))
  const info = await short.getInfo()
  assert.equal(info.state, 'paused')
  assert.deepEqual(info.lifecycle, { onTimeout: 'pause', autoResume: true })
  assert.equal((await short.commands.run('echo on')).stdout, 'on\n')
  assert.equal((await short.getInfo()).state, 'running')
  assert.ok((await short.commands.list()).some(p => p.pid === command.pid), 'the same process')
  await short.kill()
})

await test('snapshots', async () => {
  await sandbox.files.write('/home/user/kept', 'kept')
  const command = await sandbox.commands.run('sleep 1000', { background: true })
  const shot = await sandbox.createSnapshot({ name: 'sdk-shot' })
  assert.match(shot.snapshotId, /^s[a-z0-9]{20}/)
  assert.equal((await sandbox.commands.run('echo on')).stdout, 'on\n')
  const listed = await Sandbox.listSnapshots({ sandboxId: sandbox.sandboxId }).nextItems()
  assert.deepEqual(listed.map(s => s.snapshotId), [shot.snapshotId])
  const copy = await Sandbox.create(shot.snapshotId, { timeoutMs: 60_000 })
  assert.equal(await copy.files.read('/home/user/kept'), 'kept')
  assert.ok((await copy.commands.list()).some(p => p.pid === command.pid), 'its processes go on')
  await copy.files.write('/home/user/kept', 'changed')
  assert.equal(await sandbox.files.read('/home/user/kept'), 'kept')
  await copy.kill()
  assert.equal(await Sandbox.deleteSnapshot(shot.snapshotId), true)
  assert.equal(await Sandbox.deleteSnapshot(shot.snapshotId), false)
  await command.kill()
})

await test('forks', async () => {
  if (!sandbox.fork) return // not in every version
  await sandbox.files.write('/home/user/kept', 'kept')
  const forks = await sandbox.fork({ count: 2, timeoutMs: 60_000 })
  assert.equal(forks.length, 2)
  for (const { sandbox: copy } of forks.map(f => f.sandbox ? f : { sandbox: f })) {
    assert.notEqual(copy.sandboxId, sandbox.sandboxId)
    assert.equal(await copy.files.read('/home/user/kept'), 'kept')
    await copy.kill()
  }
  await sandbox.pause()
  assert.match((await thrown(() => sandbox.fork())).message, /paused/)
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 120_000 })
})

await test('a template exists, another does not', async () => {
  assert.equal(await Template.exists('base'), true)
  assert.equal(await Template.exists('no-such-template'), false)
  assert.match((await thrown(() => Sandbox.create('no-such-template'))).message, /^404: template not found: no-such-template$/)
  assert.match((await thrown(() => Sandbox.create('code-interpreter-v1'))).message, /^404: .*paddock template build code-interpreter/)
})

await test('what is not there is refused, not ignored', async () => {
  const refusals = {
    'network.allowOut': { network: { allowOut: ['1.1.1.1'] } },
    'network.httpsPorts': { network: { httpsPorts: [8443] } },
    volumeMounts: { volumeMounts: { '/mnt': 'v' } },
  }
  for (const [name, options] of Object.entries(refusals)) {
    const { message } = await thrown(() => Sandbox.create(options))
    assert.match(message, new RegExp(`400: ${name}|${name}`), message)
  }
  assert.match((await thrown(() => sandbox.updateNetwork({ denyOut: ['8.8.8.8'] }))).message, /501/)
  await (await Sandbox.create({ allowInternetAccess: false, timeoutMs: 60_000 })).kill()
})

await test('a wrong key is an AuthenticationError', async () => {
  for (const apiKey of ['pdk_wrong_key', 'e2b_00', 'x'.repeat(5000)])
    assert.equal((await thrown(() => Sandbox.list({ apiKey }).nextItems())).name, 'AuthenticationError')
})

await test('a foreign or unknown sandbox does not exist', async () => {
  for (const id of ['i' + 'a'.repeat(20), 'nonsense', '..']) {
    assert.equal((await thrown(() => Sandbox.getInfo(id))).name, 'SandboxNotFoundError')
    assert.equal(await Sandbox.kill(id), false)
  }
  if (process.env.OTHER_KEY) {
    assert.equal((await thrown(() => Sandbox.getInfo(sandbox.sandboxId, { apiKey: process.env.OTHER_KEY }))).name, 'SandboxNotFoundError')
    assert.equal(await Sandbox.kill(sandbox.sandboxId, { apiKey: process.env.OTHER_KEY }), false)
  }
})

await test('kill ends it', async () => {
  assert.equal(await sandbox.kill(), true)
  assert.equal(await sandbox.kill(), false)
  const { error } = await thrown(() => sandbox.getInfo())
  assert.ok(error instanceof SandboxNotFoundError)
  assert.equal((await thrown(() => Sandbox.connect(sandbox.sandboxId))).name, 'SandboxNotFoundError')
})

await test('a timeout ends it', async () => {
  const short = await Sandbox.create({ timeoutMs: 2000 })
  await new Promise(resolve => setTimeout(resolve, 4000))
  assert.equal((await thrown(() => short.getInfo())).name, 'SandboxNotFoundError')
})

done()
