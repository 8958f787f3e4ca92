#include "audit.h"

#include "log.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * A checkpoint is one line of text, "paddock-audit-checkpoint 1 COUNT HASH TIME SIGNATURE". The signature is Ed25519,
 * in hexadecimal, over everything before the space in front of it, so that
 * `openssl pkeyutl -verify -rawin` can check it without Paddock. The key is made at the first start and never leaves
 * its file; who wants to check elsewhere takes the public key from DIR/audit.pub once, while the server is trusted.
 */

#define KEY_NAME "audit.key"
#define KEY_NEW "audit.key.new"
#define PUBLIC_NAME "audit.pub"
#define PEM_MAX 256
#define HASH_HEX (2 * AUDIT_HASH_SIZE)
#define SIGNATURE_HEX (2 * AUDIT_SIGNATURE_SIZE)
#define CHECKPOINT_FORMAT "paddock-audit-checkpoint 1 %" SCNu64 " %64[0-9a-f] %" SCNd64 " %128[0-9a-f]%n"

static struct {
	EVP_PKEY *key;
	char public_pem[PEM_MAX];
} signer;

static void free_bio(BIO **bio)
{
	BIO_free_all(*bio);
}

static void free_context(EVP_MD_CTX **context)
{
	EVP_MD_CTX_free(*context);
}

/* ---- the key ---- */

static EVP_PKEY *generate(void)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
	EVP_PKEY *key = NULL;

	if (context && EVP_PKEY_keygen_init(context) > 0)
		EVP_PKEY_keygen(context, &key);
	EVP_PKEY_CTX_free(context);
	return key;
}

static int write_file(int dir_fd, const char *name, mode_t mode, const char *text, size_t length)
{
	_cleanup_fd_ int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return -errno;
	for (ssize_t done; length; text += done, length -= (size_t)done) {
		done = write(fd, text, length);
		if (done < 0)
			return -errno;
	}
	return fchmod(fd, mode) < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int make_key(int dir_fd)
{
	_cleanup_(free_bio) BIO *bio = BIO_new(BIO_s_mem());
	EVP_PKEY *key = generate();
	char *pem;
	long length;
	int rc = -ENOMEM;

	if (key && bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) > 0) {
		length = BIO_get_mem_data(bio, &pem);
		rc = write_file(dir_fd, KEY_NEW, 0600, pem, (size_t)length);
		OPENSSL_cleanse(pem, (size_t)length);
	}
	EVP_PKEY_free(key);
	if (rc < 0)
		return rc;
	return renameat(dir_fd, KEY_NEW, dir_fd, KEY_NAME) < 0 || fsync(dir_fd) < 0 ? -errno : 0;
}

/* What others could have read or written is no key. */
static int read_key(int dir_fd, EVP_PKEY **ret)
{
	_cleanup_fd_ int fd = openat(dir_fd, KEY_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_(free_bio) BIO *bio = NULL;
	char pem[PEM_MAX * 2];
	struct stat st;
	ssize_t length;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return -EPERM;
	length = read(fd, pem, sizeof(pem));
	if (length < 0)
		return -errno;
	bio = BIO_new_mem_buf(pem, (int)length);
	*ret = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	OPENSSL_cleanse(pem, sizeof(pem));
	return *ret && EVP_PKEY_id(*ret) == EVP_PKEY_ED25519 ? 0 : -EBADMSG;
}

static int set_public_pem(void)
{
	_cleanup_(free_bio) BIO *bio = BIO_new(BIO_s_mem());
	char *pem;
	long length;

	if (!bio || PEM_write_bio_PUBKEY(bio, signer.key) <= 0)
		return -ENOMEM;
	length = BIO_get_mem_data(bio, &pem);
	if (length <= 0 || length >= PEM_MAX)
		return -EBADMSG;
	memcpy(signer.public_pem, pem, (size_t)length);
	signer.public_pem[length] = '\0';
	return 0;
}

int audit_sign_open(int dir_fd, struct pdk_error *err)
{
	int rc = read_key(dir_fd, &signer.key);

	if (rc == -ENOENT) {
		rc = make_key(dir_fd);
		if (!rc)
			log_event(LOG_INFO, "audit.key_made", NULL);
		if (!rc)
			rc = read_key(dir_fd, &signer.key);
	}
	if (!rc)
		rc = set_public_pem();
	if (!rc)
		rc = write_file(dir_fd, PUBLIC_NAME, 0644, signer.public_pem, strlen(signer.public_pem));
	if (!rc)
		return 0;
	audit_sign_close();
	if (rc == -EPERM)
		return pdk_fail(err, rc, PDK_FAILED_PRECONDITION,
				"store: " KEY_NAME " belongs to another user or others can use it");
	if (rc == -EBADMSG)
		return pdk_fail(err, rc, PDK_DATA_LOSS, "store: " KEY_NAME " holds no Ed25519 key");
	return pdk_fail_errno(err, rc, "store: the key of the audit log");
}

void audit_sign_close(void)
{
	EVP_PKEY_free(signer.key);
	signer.key = NULL;
	signer.public_pem[0] = '\0';
}

const char *audit_public_key(void)
{
	return signer.public_pem;
}

/* ---- checkpoints ---- */

static void put_hex(char *out, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static int hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void get_hex(uint8_t *out, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
}

int audit_checkpoint_make(const struct audit_head *head, int64_t wall_ms, char ret[AUDIT_CHECKPOINT_MAX])
{
	_cleanup_(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t signature[AUDIT_SIGNATURE_SIZE];
	size_t signature_length = sizeof(signature);
	char hash[HASH_HEX + 1];
	int length;

	put_hex(hash, head->hash, AUDIT_HASH_SIZE);
	length = snprintf(ret, AUDIT_CHECKPOINT_MAX, "paddock-audit-checkpoint 1 %" PRIu64 " %s %" PRId64, head->count,
			  hash, wall_ms);
	if (!context || EVP_DigestSignInit(context, NULL, NULL, NULL, signer.key) <= 0 ||
	    EVP_DigestSign(context, signature, &signature_length, (const uint8_t *)ret, (size_t)length) <= 0 ||
	    signature_length != sizeof(signature))
		return -ENOMEM;
	ret[length++] = ' ';
	put_hex(ret + length, signature, sizeof(signature));
	return 0;
}

int audit_checkpoint_read(const char *line, struct audit_head *ret)
{
	_cleanup_(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
	char hash[HASH_HEX + 1], hex[SIGNATURE_HEX + 1];
	uint8_t signature[AUDIT_SIGNATURE_SIZE];
	struct audit_head head;
	int64_t wall_ms;
	int end = 0;

	if (sscanf(line, CHECKPOINT_FORMAT, &head.count, hash, &wall_ms, hex, &end) != 4 || line[end] ||
	    strlen(hash) != HASH_HEX || strlen(hex) != SIGNATURE_HEX || line[end - SIGNATURE_HEX - 1] != ' ')
		return -EBADMSG; /* the space is the one byte that the signature does not cover */
	get_hex(head.hash, hash, AUDIT_HASH_SIZE);
	get_hex(signature, hex, sizeof(signature));
	if (!context || EVP_DigestVerifyInit(context, NULL, NULL, NULL, signer.key) <= 0)
		return -ENOMEM;
	if (EVP_DigestVerify(context, signature, sizeof(signature), (const uint8_t *)line,
			     (size_t)end - SIGNATURE_HEX - 1) <= 0)
		return -EKEYREJECTED;
	*ret = head;
	return 0;
}
