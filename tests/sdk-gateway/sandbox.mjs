// What happens inside a sandbox, through e2b's own SDK: commands, files, terminals, watches.
import { Sandbox, CommandExitError, TimeoutError } from 'e2b'
import { assert, done, test, thrown } from './tap.mjs'

const sandbox = await Sandbox.create({ envs: { FOO: 'bar' }, timeoutMs: 300_000 })

await test('isRunning', async () => assert.equal(await sandbox.isRunning(), true))

await test('a command in the foreground', async () => {
  const result = await sandbox.commands.run('echo out; echo err >&2; echo $FOO; pwd; id -un')
  assert.equal(result.stdout, 'out\nbar\n/home/user\nuser\n')
  assert.equal(result.stderr, 'err\n')
  assert.equal(result.exitCode, 0)
})

await test('envs, cwd and user of one command', async () => {
  const result = await sandbox.commands.run('echo $A $FOO; pwd; id -un', { envs: { A: '1' }, cwd: '/tmp', user: 'root' })
  assert.equal(result.stdout, '1 bar\n/tmp\nroot\n')
  assert.equal((await sandbox.commands.run('echo "[$A]"')).stdout, '[]\n')
})

await test('an exit code is a CommandExitError', async () => {
  const { error } = await thrown(() => sandbox.commands.run('echo said; exit 3'))
  assert.ok(error instanceof CommandExitError)
  assert.equal(error.exitCode, 3)
  assert.equal(error.stdout, 'said\n')
})

await test('output streams while it runs', async () => {
  const seen = []
  const began = Date.now()
  await sandbox.commands.run('echo one; sleep 0.5; echo two', { onStdout: data => seen.push([data, Date.now() - began]) })
  assert.deepEqual(seen.map(([data]) => data), ['one\n', 'two\n'])
  assert.ok(seen[1][1] - seen[0][1] > 300, JSON.stringify(seen))
})

await test('a megabyte of output is whole', async () => {
  const { stdout } = await sandbox.commands.run('head -c 1000000 /dev/zero | tr "\\0" x')
  assert.equal(stdout.length, 1000000)
})

await test('background, list, stdin, kill', async () => {
  const handle = await sandbox.commands.run('cat', { background: true, stdin: true })
  assert.ok((await sandbox.commands.list()).some(p => p.pid === handle.pid))
  await sandbox.commands.sendStdin(handle.pid, 'hello\n')
  for (let i = 0; i < 50 && handle.stdout !== 'hello\n'; i++) await new Promise(r => setTimeout(r, 50))
  assert.equal(handle.stdout, 'hello\n')
  assert.equal(await handle.kill(), true)
  assert.equal((await thrown(() => handle.wait())).name, 'CommandExitError')
  assert.ok(!(await sandbox.commands.list()).some(p => p.pid === handle.pid))
  assert.equal(await sandbox.commands.kill(handle.pid), false)
})

await test('closing stdin ends a reader', async () => {
  const handle = await sandbox.commands.run('wc -c', { background: true, stdin: true })
  await sandbox.commands.sendStdin(handle.pid, 'abc')
  await sandbox.commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout.trim(), '3')
})

await test('connect to a running command', async () => {
  const first = await sandbox.commands.run('sleep 1; echo late', { background: true })
  await first.disconnect()
  const again = await sandbox.commands.connect(first.pid)
  assert.equal((await again.wait()).stdout, 'late\n')
})

await test('a time limit ends it', async () => {
  const { error, name } = await thrown(() => sandbox.commands.run('sleep 20', { timeoutMs: 1000 }))
  assert.ok(error instanceof TimeoutError, name)
})

await test('a missing folder is an error', async () => {
  assert.match((await thrown(() => sandbox.commands.run('true', { cwd: '/no/such' }))).message, /cwd|exist/)
})

await test('write, read and list files', async () => {
  const info = await sandbox.files.write('dir/a b.txt', 'text é')
  assert.deepEqual({ ...info, metadata: 1 }, { name: 'a b.txt', path: '/home/user/dir/a b.txt', type: 'file', metadata: 1 })
  assert.equal(await sandbox.files.read('dir/a b.txt'), 'text é')
  assert.equal(await sandbox.files.exists('dir/a b.txt'), true)
  assert.equal(await sandbox.files.exists('dir/none'), false)
  const entries = await sandbox.files.list('dir')
  assert.deepEqual(entries.map(e => [e.name, e.type, e.path, e.size]), [['a b.txt', 'file', '/home/user/dir/a b.txt', 7]])
  const stat = await sandbox.files.getInfo('dir/a b.txt')
  assert.equal(stat.permissions, '-rw-r--r--')
  assert.equal(stat.owner, 'user')
})

await test('metadata of files', async () => {
  const metadata = { author: 'me', 'x-Run.id': 'a b=c' }, kept = { author: 'me', 'x-run.id': 'a b=c' }
  for (const options of [{}, { useOctetStream: true }, { gzip: true }]) {
    const info = await sandbox.files.write('noted', 'text', { metadata, ...options })
    assert.deepEqual(info, { name: 'noted', path: '/home/user/noted', type: 'file', metadata: kept }, JSON.stringify(options))
    assert.deepEqual((await sandbox.files.getInfo('noted')).metadata, kept)
    assert.equal(await sandbox.files.read('noted'), 'text')
    await sandbox.files.write('noted', 'again')
    assert.equal((await sandbox.files.getInfo('noted')).metadata, undefined)
  }
  await sandbox.files.write([{ path: 'n/1', data: '1' }, { path: 'n/2', data: '2' }], { metadata })
  assert.deepEqual((await sandbox.files.list('n')).map(e => e.metadata), [kept, kept])
  assert.equal((await sandbox.commands.run('python3 -c "import os; print(os.getxattr(\'n/1\', \'user.e2b.author\').decode())"')).stdout, 'me\n')
  const { error } = await thrown(() => sandbox.files.write('noted', 'x', { metadata: { a: 'x'.repeat(4096) } }))
  assert.equal(error.name, 'InvalidArgumentError')
  assert.equal(await sandbox.files.read('noted'), 'again')
})

await test('bytes of every value, and a large file', async () => {
  const bytes = new Uint8Array(5 << 20).map((_, i) => (i * 7 + (i >> 8)) & 255)
  await sandbox.files.write('large', bytes.buffer)
  const back = await sandbox.files.read('large', { format: 'bytes' })
  assert.equal(Buffer.compare(Buffer.from(back), Buffer.from(bytes)), 0)
  const { stdout } = await sandbox.commands.run('stat -c %s large')
  assert.equal(stdout, `${5 << 20}\n`)
})

await test('several files at once, an empty one among them', async () => {
  const written = await sandbox.files.write([{ path: 'm/1', data: 'one' }, { path: 'm/2', data: '' }, { path: '/tmp/m3', data: 'three' }])
  assert.deepEqual(written.map(w => w.path), ['/home/user/m/1', '/home/user/m/2', '/tmp/m3'])
  assert.equal(await sandbox.files.read('m/2'), '')
  assert.equal(await sandbox.files.read('/tmp/m3'), 'three')
})

await test('errors of files', async () => {
  assert.equal((await thrown(() => sandbox.files.read('none'))).name, 'FileNotFoundError')
  assert.equal((await thrown(() => sandbox.files.read('dir'))).name, 'InvalidArgumentError')
  assert.equal((await thrown(() => sandbox.files.list('none'))).name, 'FileNotFoundError')
})

await test('makeDir, rename, remove', async () => {
  assert.equal(await sandbox.files.makeDir('d1/d2'), true)
  assert.equal(await sandbox.files.makeDir('d1/d2'), false)
  await sandbox.files.write('d1/x', 'x')
  const moved = await sandbox.files.rename('d1/x', 'd1/d2/y')
  assert.equal(moved.path, '/home/user/d1/d2/y')
  await sandbox.files.remove('d1')
  assert.equal(await sandbox.files.exists('d1'), false)
})

await test('watchDir tells of changes', async () => {
  await sandbox.files.makeDir('watched')
  const events = [], entries = []
  const watch = await sandbox.files.watchDir('watched', event => {
    if (event.entry) entries.push(event.entry)
    events.push(`${event.type} ${event.name}`)
  }, { includeEntry: true })
  await sandbox.files.write('watched/new', '1')
  for (let i = 0; i < 100 && !events.some(e => e.startsWith('create')); i++) await new Promise(r => setTimeout(r, 50))
  await watch.stop()
  assert.ok(events.includes('create new') || events.some(e => /create|write/.test(e)), JSON.stringify(events))
  assert.ok(entries.some(e => e.path === '/home/user/watched/new' && e.type === 'file'), JSON.stringify(entries))
})

await test('a terminal', async () => {
  let output = ''
  const handle = await sandbox.pty.create({ cols: 80, rows: 24, onData: data => (output += Buffer.from(data).toString()), timeoutMs: 30_000 })
  await sandbox.pty.sendInput(handle.pid, new TextEncoder().encode('stty size\n'))
  for (let i = 0; i < 100 && !output.includes('24 80'); i++) await new Promise(r => setTimeout(r, 50))
  assert.ok(output.includes('24 80'), output)
  await sandbox.pty.resize(handle.pid, { cols: 100, rows: 30 })
  await sandbox.pty.sendInput(handle.pid, new TextEncoder().encode('stty size; exit\n'))
  await handle.wait()
  assert.ok(output.includes('30 100'), output)
})

await test('git helpers', async () => {
  await sandbox.commands.run('mkdir -p repo && cd repo && git init -q . && echo 1 > f && git add f && git -c user.name=a -c user.email=a@b commit -qm m')
  const status = await sandbox.git.status('repo')
  assert.equal(status.isClean ?? status.files?.length === 0, true)
})

await test('a wrong token opens nothing', async () => {
  const base = process.env.E2B_SANDBOX_URL
  if (!base) return
  const ask = (token) => fetch(`${base}/files?path=/etc/hostname`, { headers: { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49983', ...(token && { 'X-Access-Token': token }) } })
  assert.equal((await ask('0'.repeat(64))).status, 502)
  assert.equal((await ask()).status, 401)
})

await test('after the end', async () => {
  const running = await sandbox.commands.run('sleep 100', { background: true })
  await sandbox.kill()
  assert.equal((await thrown(() => running.wait())).name, 'TimeoutError')
  assert.equal(await sandbox.isRunning(), false)
  const { name } = await thrown(() => sandbox.commands.run('true'))
  assert.ok(['SandboxNotFoundError', 'TimeoutError'].includes(name), name)
})

done()
