// Builds of templates through the SDK's own Template.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assert, done, test, thrown } from './tap.mjs'

const { Sandbox, Template, waitForPort, waitForTimeout } = await import(process.env.SDK ?? 'e2b')
const name = `web-${process.env.PREFIX.replace(/[^a-z]/g, '-')}`
const folder = mkdtempSync(join(tmpdir(), 'paddock-sdk-'))
mkdirSync(join(folder, 'app/sub'), { recursive: true })
writeFileSync(join(folder, 'app/main.py'), `print("${name}")\n`)
writeFileSync(join(folder, 'app/sub/data.txt'), 'data\n')
symlinkSync('main.py', join(folder, 'app/link.py'))
writeFileSync(join(folder, 'one.txt'), `${name}\n`)
process.on('exit', () => rmSync(folder, { recursive: true }))

const recipe = () => Template({ fileContextPath: folder })
  .fromTemplate('base')
  .setEnvs({ COLOUR: 'red', BOTH: '$COLOUR and blue' })
  .setWorkdir('/home/user/work')
  .copy('app', 'app')
  .copy('one.txt', '/home/user/named.txt', { mode: 0o600 })
  .runCmd('echo built; date +%s%N > stamp')
  .runCmd(['id -un > who', 'cp who /root/who'], { user: 'root' })

async function inside(template, command, options) {
  const sandbox = await Sandbox.create(template, { timeoutMs: 60_000 })
  try {
    return (await sandbox.commands.run(command, options)).stdout
  } finally {
    await sandbox.kill()
  }
}

let first
await test('build runs its steps and streams its log', async () => {
  const lines = []
  first = await Template.build(recipe(), name, { onBuildLogs: entry => lines.push(entry.message), cpuCount: 1, memoryMB: 512 })
  assert.equal(first.name, name)
  assert.ok(lines.includes('built'), lines.join('\n'))
  assert.ok(lines.some(line => line.startsWith("Uploaded 'app'")), lines.join('\n'))
  assert.ok(lines.includes('the template is ready'), lines.join('\n'))
})

await test('what is made from it has its files, environment and directory', async () => {
  const out = await inside(name, 'echo "$BOTH|$PWD|$(id -un)"; cat app/sub/data.txt app/link.py who; stat -c %a ../named.txt; sudo cat /root/who')
  assert.equal(out, `red and blue|/home/user/work|user\ndata\nprint("${name}")\nroot\n600\nroot\n`)
})

await test('an unchanged build is taken over, a changed file is not', async () => {
  const stamp = await inside(name, 'cat stamp')
  const lines = []
  await Template.build(recipe(), name, { onBuildLogs: entry => lines.push(entry.message) })
  assert.ok(lines.some(line => line.includes('already cached')), lines.join('\n'))
  assert.equal(await inside(name, 'cat stamp'), stamp)
  writeFileSync(join(folder, 'app/sub/data.txt'), 'other\n')
  await Template.build(recipe(), name)
  assert.notEqual(await inside(name, 'cat stamp'), stamp)
  assert.equal(await inside(name, 'cat app/sub/data.txt'), 'other\n')
})

await test('in the background, with its status', async () => {
  const build = await Template.buildInBackground(Template().fromTemplate(name).runCmd('sleep 1'), name, { tags: ['v1', 'v2'] })
  assert.deepEqual([...build.tags].sort(), ['v1', 'v2'])
  let status = await Template.getBuildStatus(build)
  assert.ok(['building', 'ready'].includes(status.status), status.status)
  while (status.status === 'building') status = await Template.getBuildStatus(build, { logsOffset: 1 })
  assert.equal(status.status, 'ready')
  assert.equal(status.buildID, build.buildId)
})

await test('exists, tags', async () => {
  assert.equal(await Template.exists(name), true)
  assert.equal(await Template.exists(`${name}:v2`), true)
  assert.equal(await Template.exists(`${name}-none`), false)
  const tags = async () => (await Template.getTags(name)).map(({ tag }) => tag).sort()
  assert.deepEqual(await tags(), ['default', 'v1', 'v2'])
  const set = await Template.assignTags(`${name}:v1`, ['stable'])
  assert.deepEqual(set.tags, ['stable'])
  assert.deepEqual(await tags(), ['default', 'stable', 'v1', 'v2'])
  await Template.removeTags(name, ['stable', 'v2'])
  assert.deepEqual(await tags(), ['default', 'v1'])
  assert.match(await inside(`${name}:v1`, 'cat who'), /root/)
  assert.match((await thrown(() => Template.assignTags(name, [':x']))).message, /^400: tags: /)
  assert.match((await thrown(() => Template.removeTags(name, ['none']))).message, /^404: /)
})

await test('a failing command names itself and its step', async () => {
  const failed = await thrown(() => Template.build(Template().fromTemplate('base').runCmd('true').runCmd('exit 3'), name))
  assert.equal(failed.name, 'BuildError')
  assert.equal(failed.message, "failed to run command 'exit 3': exit status 3")
  const user = await thrown(() => Template.build(Template().fromTemplate('base').runCmd('whoami', { user: 'root123' }), name))
  assert.equal(user.message, "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'")
  assert.match(await inside(name, 'cat app/sub/data.txt'), /other/)
})

await test('images of registries are refused by name', async () => {
  assert.match((await thrown(() => Template.build(Template().fromImage('ubuntu:22.04'), name))).message, /^400: fromImage: .*fromTemplate/)
  const registry = Template().fromImage('example.test/x', { username: 'u', password: 'p' })
  assert.match((await thrown(() => Template.build(registry, name))).message, /^400: fromImageRegistry: /)
  assert.match((await thrown(() => Template.build(Template().fromDockerfile('FROM alpine\nRUN true'), name))).message, /^400: fromImage: /)
  await Template.build(Template().fromBaseImage().runCmd('true'), `${name}-sdk-base`)
  assert.match((await thrown(() => Template.build(Template().fromTemplate('none'), name))).message, /^404: from_template: /)
})

if (process.env.CRIU) {
  await test('a start command runs in what is made from it', async () => {
    const serve = Template().fromTemplate(name)
      .setStartCmd('exec python3 -m http.server 8000 --bind 127.0.0.1', process.env.SDK ? 'sleep 2' : waitForTimeout(2000))
    await Template.build(serve, `${name}-served`)
    assert.match(await inside(`${name}-served`, 'python3 -c "import urllib.request as u; print(u.urlopen(\'http://127.0.0.1:8000/who\').read())"'), /root/)
  })
}
done()
