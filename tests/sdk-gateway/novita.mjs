// novita-sandbox, unchanged: its own headers, its own spelling of some paths.
import { Sandbox } from 'novita-sandbox'
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
  if (!sandbox.clone) return
  const clones = await sandbox.clone({ count: 2 })
  const copies = Array.isArray(clones) ? clones : clones.sandboxes
  assert.equal(copies.length, 2)
  for (const copy of copies) {
    const id = copy.sandboxId ?? copy.sandboxID
    assert.notEqual(id, sandbox.sandboxId)
    const connected = await Sandbox.connect(id)
    assert.equal(await connected.files.read('a/b'), 'text')
    await connected.kill()
  }
})

await test('a wrong key is an AuthenticationError', async () => {
  assert.equal((await thrown(() => Sandbox.list({ apiKey: 'pdk_wrong_key' }).nextItems())).name, 'AuthenticationError')
})

await test('kill', async () => {
  await sandbox.kill()
  assert.equal(await sandbox.isRunning(), false)
})

done()
