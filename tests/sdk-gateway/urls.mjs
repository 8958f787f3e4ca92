// Signed file URLs: downloadUrl() and uploadUrl(), fetched by somebody who has nothing but the URL.
import { Sandbox } from 'e2b'
import { assert, done, test } from './tap.mjs'

const sandbox = await Sandbox.create({ timeoutMs: 300_000 })
const other = await Sandbox.create({ timeoutMs: 300_000 })
await sandbox.files.write('a b+c.txt', 'one')
await other.files.write('a b+c.txt', 'another')

const change = (url, name, value) => { const changed = new URL(url); changed.searchParams.set(name, value); return changed }
const refused = async (url, message, options) => {
  const answer = await fetch(url, options)
  assert.equal(answer.status, 401)
  assert.deepEqual(await answer.json(), { code: 401, message })
}

await test('downloadUrl', async () => {
  for (const [box, text] of [[sandbox, 'one'], [other, 'another']]) {
    const answer = await fetch(await box.downloadUrl('a b+c.txt'))
    assert.equal(answer.status, 200)
    assert.equal(await answer.text(), text)
  }
  assert.equal(await (await fetch(await sandbox.downloadUrl('/etc/hostname', { user: 'root' }))).text(), await sandbox.files.read('/etc/hostname'))
})

await test('it opens one file, for one purpose', async () => {
  const url = await sandbox.downloadUrl('a b+c.txt')
  await refused(change(url, 'path', '/etc/passwd'), 'invalid signature')
  await refused(change(url, 'username', 'root'), 'invalid signature')
  await refused(change(url, 'signature', 'v1_' + 'A'.repeat(43)), 'invalid signature')
  await refused(change(url, 'signature', 'v1_'), 'invalid signature')
  await refused(url, 'invalid signature', { method: 'POST', body: new Blob(['x']), headers: { 'Content-Type': 'application/octet-stream' } })
  assert.equal(await sandbox.files.read('a b+c.txt'), 'one')
  const missing = await fetch(await sandbox.downloadUrl('nothing'))
  assert.equal(missing.status, 404)
})

await test('expiry', async () => {
  const url = await sandbox.downloadUrl('a b+c.txt', { useSignatureExpiration: 1000_000 })
  assert.equal(await (await fetch(url)).text(), 'one')
  await refused(change(url, 'signature_expiration', String(Math.floor(Date.now() / 1000) + 5_000_000)), 'invalid signature')
  await refused(change(url, 'signature_expiration', 'x'), 'invalid signature')
  const short = await sandbox.downloadUrl('a b+c.txt', { useSignatureExpiration: 1 })
  await new Promise(resolve => setTimeout(resolve, 2500))
  await refused(short, 'signature is already expired')
})

await test('uploadUrl', async () => {
  const form = new FormData()
  form.append('file', new Blob(['uploaded']), 'ignored.txt')
  const answer = await fetch(await sandbox.uploadUrl('up.txt'), { method: 'POST', body: form })
  assert.equal(answer.status, 200)
  assert.equal((await answer.json())[0].path, '/home/user/up.txt')
  assert.equal(await sandbox.files.read('up.txt'), 'uploaded')
  const many = new FormData()
  many.append('file', new Blob(['1']), 'named-1.txt')
  many.append('file', new Blob(['2']), 'named-2.txt')
  assert.equal((await fetch(await sandbox.uploadUrl(), { method: 'POST', body: many })).status, 200)
  assert.equal(await sandbox.files.read('named-2.txt'), '2')
  await refused(change(await sandbox.uploadUrl('up.txt'), 'path', 'other.txt'), 'invalid signature', { method: 'POST', body: form })
  await refused(await sandbox.uploadUrl('up.txt'), 'invalid signature')
})

await test('it ends with the sandbox', async () => {
  const url = await other.downloadUrl('a b+c.txt')
  await other.kill()
  const answer = await fetch(url)
  assert.ok([401, 502].includes(answer.status), String(answer.status))
})

await sandbox.kill()
done()
