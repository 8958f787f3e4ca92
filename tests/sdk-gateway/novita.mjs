// novita-sandbox, unchanged: its own headers, its own spelling of some paths.
import { Novita, Sandbox, Template } from 'novita-sandbox'
import { assert, done, test, thrown } from './tap.mjs'

const sandbox = await Sandbox.create('base', { timeoutMs: 120_000, metadata: { by: 'novita' } })

await test('create and getInfo', async () => {
  assert.match(sandbox.sandboxId, /^i[a-z0-9]{20}$/)
  assert.equal((await sandbox.getInfo()).metadata.by, 'novita')
  assert.equal(await sandbox.isRunning(), true)
})

await test('commands and files', async () => {
  assert.equal((await sandbox.commands.run('echo $((6 * 7))')).stdout, '42\n')
  await sandbox.files.write('a/b', 'text')
  assert.equal(await sandbox.files.read('a/b'), 'text')
  assert.deepEqual((await sandbox.files.list('a')).map(e => e.name), ['b'])
})

await test('list, connect, setTimeout', async () => {
  const listed = await Sandbox.list({ query: { metadata: { by: 'novita' } } }).nextItems()
  assert.deepEqual(listed.map(s => s.sandboxId), [sandbox.sandboxId])
  const again = await Sandbox.connect(sandbox.sandboxId)
  assert.equal((await again.commands.run('cat a/b')).stdout, 'text')
  await sandbox.setTimeout(60_000)
})

await test('pause, connect, clone', async () => {
  await sandbox.pause()
  assert.equal(await sandbox.isRunning(), false)
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 120_000 })
  assert.equal(await sandbox.files.read('a/b'), 'text')
  const { sandboxes, count, snapshotTemplateId } = await Sandbox.clone(sandbox.sandboxId, { count: 2, strict: true })
  assert.deepEqual([sandboxes.length, count, snapshotTemplateId || ''], [2, 2, ''])
  for (const copy of sandboxes) {
    assert.notEqual(copy.sandboxId, sandbox.sandboxId)
    assert.equal(await copy.files.read('a/b'), 'text')
    await copy.kill()
  }
})

await test('reset', async () => {
  const token = sandbox.trafficAccessToken
  const command = await sandbox.commands.run('sleep 1000', { background: true })
  const ended = thrown(() => command.wait())
  assert.equal(await sandbox.files.exists('a/b'), true)
  assert.equal(await sandbox.reset(), true)
  await ended
  assert.equal(await sandbox.files.exists('a/b'), false)
  assert.deepEqual(await sandbox.commands.list(), [])
  assert.equal((await sandbox.getInfo()).metadata.by, 'novita')
  assert.equal(sandbox.trafficAccessToken, token)
  await sandbox.files.write('a/b', 'text')
  assert.equal(await Sandbox.reset(sandbox.sandboxId, { timeoutMs: 200_000, allowPublicTraffic: false }), true)
  const info = await sandbox.getInfo()
  assert.ok(Math.abs(info.endAt - Date.now() - 200_000) < 5000, String(info.endAt))
  assert.equal(await sandbox.files.exists('a/b'), false)
  assert.equal(await sandbox.reset({ allowPublicTraffic: true }), true)
})

await test('reset and stay paused, reset what is paused', async () => {
  await sandbox.files.write('a/b', 'text')
  assert.equal(await sandbox.reset({ resume: false }), true)
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal(await sandbox.reset(), true)
  assert.equal((await sandbox.getInfo()).state, 'running')
  assert.equal(await sandbox.files.exists('a/b'), false)
})

await test('two resets at once: one of them may be false', async () => {
  const both = await Promise.all([sandbox.reset(), sandbox.reset()])
  assert.ok(both.includes(true), String(both))
  await sandbox.files.write('a/b', 'text')
})

await test('resets that cannot be', async () => {
  assert.equal((await thrown(() => Sandbox.reset('i' + 'a'.repeat(20)))).name, 'SandboxNotFoundError')
  assert.match((await thrown(() => sandbox.reset({ network: { allowOut: ['1.1.1.1'] } }))).message, /400.*allowOut/)
  assert.match((await thrown(() => sandbox.reset({ timeoutMs: 10 ** 12 }))).message, /400/)
  const { sandboxes: [copy] } = await Sandbox.clone(sandbox.sandboxId)
  assert.match((await thrown(() => copy.reset())).message, /400.*not there any more/)
  assert.equal(await copy.files.read('a/b'), 'text')
  await copy.kill()
  assert.equal((await thrown(() => copy.reset())).name, 'SandboxNotFoundError')
})

// The SDK makes this call for domains of an earlier time only.
const legacy = { domain: 'sandbox.novita.ai' }

await test('commit', async () => {
  const made = await Sandbox.commit(sandbox.sandboxId, { ...legacy, alias: 'committed' })
  assert.equal(made.templateId, 'committed')
  assert.deepEqual(made.names, ['committed'])
  assert.equal(made.templateType, 'snapshot_template')
  assert.ok(Math.abs(made.createdAt - Date.now()) < 60_000)
  assert.match((await thrown(() => Sandbox.commit(sandbox.sandboxId, { ...legacy, alias: 'committed' }))).message, /409/)
  assert.deepEqual(await Sandbox.listSnapshots().nextItems(), [], 'nothing else stays')
  const copy = await Sandbox.create('committed', { timeoutMs: 60_000 })
  assert.equal(await copy.files.read('a/b'), 'text')
  await copy.files.write('a/b', 'changed')
  assert.equal(await copy.reset(), true)
  assert.equal(await copy.files.read('a/b'), 'text')
  await copy.kill()
  const unnamed = await Sandbox.commit(sandbox.sandboxId, legacy)
  assert.match(unnamed.templateId, /^commit-s/)
  assert.equal((await thrown(() => Sandbox.commit('i' + 'a'.repeat(20), legacy))).name, 'SandboxNotFoundError')

  const page = await Template.list({ templateType: 'snapshot_template', limit: 1 }).nextPage()
  assert.deepEqual([page.total, page.page, page.limit, page.totalPages, page.templates.length], [2, 1, 1, 2, 1])
  const names = []
  for (const pages = Template.list({ templateType: 'snapshot_template', limit: 1 }); pages.hasNext;)
    names.push(...(await pages.nextPage()).templates.flatMap(t => t.names))
  assert.deepEqual(names.sort(), [unnamed.templateId, 'committed'].sort())
  const one = await Template.get('committed')
  assert.deepEqual([one.templateId, one.names, one.public], ['committed', ['committed'], false])
  for (const { templateId } of [made, unnamed])
    assert.equal(await new Novita().template.delete(templateId), true)
  assert.equal(await new Novita().template.delete('committed'), false)
})

await test('templates', async () => {
  const page = await Template.list().nextPage()
  const base = page.templates.find(t => t.names.includes('base'))
  assert.equal(base.public, true)
  assert.equal(page.totalPages, 1)
  assert.deepEqual((await Template.get('base')).names, ['base'])
  assert.match((await thrown(() => Template.get('no-such-template'))).message, /^404/)
  const bad = await fetch(`${process.env.NOVITA_API_URL}/v2/templates?page=0`, { headers: { 'X-API-KEY': process.env.NOVITA_API_KEY } })
  assert.equal(bad.status, 400)
})

await test('quota', async () => {
  const { limit, usage } = await Sandbox.getQuota()
  assert.ok(limit.concurrentInstances > 0 && limit.maxVcpu > 0 && limit.maxLengthHours === 24, JSON.stringify(limit))
  assert.deepEqual([usage.concurrentInstances, usage.concurrentRamMb, usage.concurrentVcpu], [1, 512, 1])
})

await test('events', async () => {
  const names = async opts => (await Sandbox.getEvents(opts)).items.map(e => e.eventName)
  const sandboxID = sandbox.sandboxId
  const own = await Sandbox.getEvents({ sandboxID, events: 'create,reset', orderAsc: true, limit: 2 })
  assert.deepEqual(own.items.map(e => [e.eventName, e.state, e.statusCode, e.sandboxID]),
    [['create', 'success', 200, sandboxID], ['reset', 'success', 200, sandboxID]])
  assert.equal(own.hasMore, true)
  assert.ok(Math.abs(own.items[0].recordAt - Date.now()) < 300_000)
  assert.deepEqual(await names({ sandboxID, events: 'create,reset', orderAsc: true, offset: 1, limit: 1 }), ['reset'])
  assert.deepEqual(await names({ sandboxID, events: 'create' }), ['create'])
  assert.ok((await names({ sandboxID, state: 'failed' })).includes('reset'), 'the ones that were refused')
  assert.deepEqual(await names({ sandboxID, endTime: own.items[0].recordAt - 1 }), [])
  assert.deepEqual(await names({ sandboxID, startTime: Date.now() + 60_000 }), [])
  assert.deepEqual(await names({ sandboxID: 'i' + 'a'.repeat(20) }), [])
  assert.deepEqual(await names({ apiKey: process.env.OTHER_KEY, sandboxID }), [], "another tenant's")
  assert.ok((await names()).includes('kill'))
  for (const wrong of [{ templateID: 'x' }, { limit: 0 }, { state: 'loud' }, { offset: -1 }])
    assert.match((await thrown(() => Sandbox.getEvents(wrong))).message, /400/)
})

await test('a wrong key is an AuthenticationError', async () => {
  assert.equal((await thrown(() => Sandbox.list({ apiKey: 'pdk_wrong_key' }).nextItems())).name, 'AuthenticationError')
})

await test('kill', async () => {
  await sandbox.kill()
  assert.equal(await sandbox.isRunning(), false)
})

done()
