// Names below the test's domain are this machine: what a wildcard DNS entry does, without one.
const dns = require('node:dns')
const lookup = dns.lookup
dns.lookup = (name, options, callback) => {
  if (typeof options === 'function') { callback = options; options = {} }
  if (!name.endsWith('.paddock.test') && name !== 'paddock.test') return lookup(name, options, callback)
  if (options.all) return process.nextTick(callback, null, [{ address: '127.0.0.1', family: 4 }])
  return process.nextTick(callback, null, '127.0.0.1', 4)
}
