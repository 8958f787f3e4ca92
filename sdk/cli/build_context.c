#include "build_context.h"

#include "sandbox/base/cleanup.h"
#include "sandbox/base/hex.h"
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Every file is opened from the folder's descriptor by openat2() with RESOLVE_BENEATH, so that whatever links there are,
 * and are made meanwhile, lead nowhere else. A tree is read twice, for its hash and for its tar; the second time must give
 * the first one's hash.
 */

#define IGNORE_FILE ".dockerignore"
#define IGNORE_MAX (1u << 20)
#define PIECE (256u << 10)
#define TREE_MAX (1ull << 30) /* as the server's */
#define FOLDER "files"

struct build_context {
	int fd;
	struct build_ignore ignore;
};

static int open_below(const struct build_context *context, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, context->fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

int build_context_read(const struct build_context *context, const char *path, size_t max, char **ret,
		       size_t *ret_length, struct pdk_error *err)
{
	_cleanup_fd_ int fd = open_below(context, path, O_RDONLY | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	size_t length = 0;
	struct stat st;

	if (fd < 0)
		return pdk_fail_errno(err, fd, "%s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
		return pdk_fail(err, -EFBIG, PDK_INVALID_ARGUMENT, "%s: not a file, or larger than %zu bytes", path,
				max);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		abort();
	while (length < (size_t)st.st_size) {
		ssize_t n = read(fd, text + length, (size_t)st.st_size - length);

		if (n < 0 && errno != EINTR)
			return pdk_fail_errno(err, -errno, "%s", path);
		if (n == 0)
			break;
		length += n > 0 ? (size_t)n : 0;
	}
	text[length] = '\0';
	*ret = STEAL_PTR(text);
	*ret_length = length;
	return 0;
}

struct build_context *build_context_open(const char *folder, struct pdk_error *err)
{
	struct build_context *context = calloc(1, sizeof(*context));
	_cleanup_free_ char *text = NULL;
	size_t length;
	int rc;

	if (!context)
		abort();
	context->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (context->fd < 0) {
		pdk_fail_errno(err, -errno, "%s", folder);
		free(context);
		return NULL;
	}
	rc = build_context_read(context, IGNORE_FILE, IGNORE_MAX, &text, &length, err);
	if (rc >= 0)
		build_ignore_parse(text, &context->ignore);
	if (rc >= 0 || rc == -ENOENT)
		return context;
	build_context_close(context);
	return NULL;
}

void build_context_close(struct build_context *context)
{
	if (!context)
		return;
	close(context->fd);
	build_ignore_clear(&context->ignore);
	free(context);
}

/* --- what there is --- */

static char *text_of(const char *first, const char *between, const char *second)
{
	char *text;

	if (asprintf(&text, "%s%s%s", first, between, second) < 0)
		abort();
	return text;
}

static char *below(const char *folder, const char *name)
{
	return *folder ? text_of(folder, "/", name) : strdup(name);
}

static struct build_tree_entry *add_entry(struct build_tree *tree, const char *name, const char *path)
{
	struct build_tree_entry *entry;

	if ((tree->n & (tree->n - 1)) == 0)
		tree->entries = realloc(tree->entries, (tree->n ? 2 * tree->n : 1) * sizeof(*tree->entries));
	if (!tree->entries)
		abort();
	entry = &tree->entries[tree->n++];
	*entry = (struct build_tree_entry){.name = strdup(name), .path = strdup(path), .order = tree->n};
	if (!entry->name || !entry->path)
		abort();
	return entry;
}

static void entry_clear(struct build_tree_entry *entry)
{
	free(entry->name);
	free(entry->path);
	free(entry->link);
}

static int add_folder(const struct build_context *context, struct build_tree *tree, const char *name, const char *path,
		      struct pdk_error *err);

static int add_link(struct build_tree_entry *entry, int fd, struct pdk_error *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(fd, "", target, sizeof(target));

	if (n < 0 || n == sizeof(target))
		return pdk_fail_errno(err, n < 0 ? -errno : -ENAMETOOLONG, "%s", entry->path);
	entry->link = strndup(target, (size_t)n);
	if (!entry->link)
		abort();
	return 0;
}

/* A path of the folder, and all that is below it, as `name`. */
static int add_path(const struct build_context *context, struct build_tree *tree, const char *name, const char *path,
		    struct pdk_error *err)
{
	_cleanup_fd_ int fd = open_below(context, *path ? path : ".", O_PATH);
	struct build_tree_entry *entry;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pdk_fail_errno(err, fd < 0 ? fd : -errno, "%s%s", path,
				      fd == -EXDEV ? " leads out of the folder" : "");
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: is not a file, a folder or a link", path);
	entry = add_entry(tree, name, path);
	entry->mode = S_ISLNK(st.st_mode) ? S_IFLNK | 0777 : (st.st_mode & (S_IFMT | 0777));
	if (S_ISLNK(st.st_mode))
		return add_link(entry, fd, err);
	if (S_ISDIR(st.st_mode))
		return add_folder(context, tree, name, path, err);
	entry->bytes = (uint64_t)st.st_size;
	tree->bytes += entry->bytes;
	if (tree->bytes > TREE_MAX)
		return pdk_fail(err, -EFBIG, PDK_INVALID_ARGUMENT, "%s: with it, this COPY is larger than 1 GiB", path);
	return 0;
}

/* Is it there? A folder that is ignored may have something in it that is not. */
static bool is_there(const struct build_context *context, const char *path, bool is_folder)
{
	return !build_ignore_matches(&context->ignore, path) || (is_folder && context->ignore.may_keep);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static DIR *open_folder(const struct build_context *context, const char *path, struct pdk_error *err)
{
	int fd = open_below(context, *path ? path : ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		pdk_fail_errno(err, fd < 0 ? fd : -errno, "%s", *path ? path : ".");
	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

/* A folder that is ignored is there for what is not ignored in it. */
static int add_inner(const struct build_context *context, struct build_tree *tree, const char *name, const char *path,
		     struct pdk_error *err)
{
	size_t before = tree->n;
	int rc = add_path(context, tree, name, path, err);

	if (rc >= 0 && tree->n == before + 1 && S_ISDIR(tree->entries[before].mode) &&
	    build_ignore_matches(&context->ignore, path))
		entry_clear(&tree->entries[--tree->n]);
	return rc;
}

static int add_folder(const struct build_context *context, struct build_tree *tree, const char *name, const char *path,
		      struct pdk_error *err)
{
	DIR *dir = open_folder(context, path, err);
	struct dirent *found;
	int rc = dir ? 0 : -EIO;

	while (rc >= 0 && (found = readdir(dir))) {
		_cleanup_free_ char *inner = NULL, *as = NULL;

		if (is_dots(found->d_name))
			continue;
		inner = below(path, found->d_name);
		as = below(name, found->d_name);
		if (strlen(inner) >= PATH_MAX)
			rc = pdk_fail_errno(err, -ENAMETOOLONG, "%.200s", inner);
		else if (is_there(context, inner, found->d_type == DT_DIR))
			rc = add_inner(context, tree, as, inner, err);
	}
	if (dir)
		closedir(dir);
	return rc;
}

/* --- sources --- */

struct paths {
	char **item;
	size_t n;
};

static void paths_clear(struct paths *paths)
{
	for (size_t i = 0; i < paths->n; i++)
		free(paths->item[i]);
	free(paths->item);
}

static void paths_add(struct paths *paths, char *path)
{
	paths->item = realloc(paths->item, (paths->n + 1) * sizeof(char *));
	if (!paths->item)
		abort();
	paths->item[paths->n++] = path;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Without what says nothing; a source that begins with '/' is below the folder, too. */
static int normalize(const char *source, char *ret, struct pdk_error *err)
{
	char *to = ret;

	while (*source) {
		size_t length = strcspn(source, "/");

		if (length == 2 && strncmp(source, "..", 2) == 0)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "'..' leads out of the folder");
		if (length && !(length == 1 && *source == '.')) {
			if (to > ret)
				*to++ = '/';
			memcpy(to, source, length);
			to += length;
		}
		source += length + (source[length] == '/');
	}
	*to = '\0';
	return 0;
}

/* Everything below `folder` that the rest of the pattern matches. */
static int expand(const struct build_context *context, const char *folder, const char *pattern, struct paths *ret,
		  struct pdk_error *err)
{
	size_t length = strcspn(pattern, "/");
	const char *rest = pattern[length] ? pattern + length + 1 : NULL;
	_cleanup_free_ char *part = strndup(pattern, length);
	struct dirent *found;
	int rc = 0;
	DIR *dir;

	if (!part)
		abort();
	dir = open_folder(context, folder, err);
	if (!dir)
		return rest || *folder ? 0 : -EIO; /* a name on the way is no folder */
	while (rc >= 0 && (found = readdir(dir))) {
		_cleanup_free_ char *path = NULL;

		if (is_dots(found->d_name) || fnmatch(part, found->d_name, 0) != 0)
			continue;
		path = below(folder, found->d_name);
		if (rest) {
			rc = expand(context, path, rest, ret, err);
		} else if (is_there(context, path, found->d_type == DT_DIR)) {
			paths_add(ret, STEAL_PTR(path));
		}
	}
	closedir(dir);
	return rc;
}

static bool is_folder(const struct build_context *context, const char *path)
{
	_cleanup_fd_ int fd = open_below(context, *path ? path : ".", O_PATH | O_DIRECTORY);

	return fd >= 0;
}

static int find_source(const struct build_context *context, const char *source, struct paths *ret,
		       struct pdk_error *err)
{
	_cleanup_free_ char *path = malloc(strlen(source) + 2);
	size_t before = ret->n;
	int rc;

	if (!path)
		abort();
	rc = normalize(source, path, err);
	if (rc < 0)
		return rc;
	if (strpbrk(path, "*?[")) {
		rc = expand(context, "", path, ret, err);
		if (rc >= 0 && ret->n == before)
			rc = pdk_fail(err, -ENOENT, PDK_INVALID_ARGUMENT, "nothing matches '%.200s'", source);
		if (rc >= 0)
			qsort(ret->item + before, ret->n - before, sizeof(char *), by_text);
		return rc;
	}
	if (*path && !is_there(context, path, is_folder(context, path)))
		return pdk_fail(err, -ENOENT, PDK_INVALID_ARGUMENT, "'%.200s' is ignored by " IGNORE_FILE, source);
	paths_add(ret, STEAL_PTR(path));
	return 0;
}

/* A folder's content, anything else under its own name. */
static int add_source(const struct build_context *context, struct build_tree *tree, const char *path, bool alone,
		      struct pdk_error *err)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	_cleanup_free_ char *name = NULL;

	if (is_folder(context, path))
		return add_folder(context, tree, FOLDER, path, err);
	name = alone ? strdup(base) : text_of(FOLDER, "/", base);
	return add_path(context, tree, name, path, err);
}

/* --- the hash --- */

/* By name, and of the same name in the order in which they were named. */
static int by_name(const void *a, const void *b)
{
	const struct build_tree_entry *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* Of several with one name the last one counts. */
static void sort_entries(struct build_tree *tree)
{
	size_t n = 0;

	qsort(tree->entries, tree->n, sizeof(*tree->entries), by_name);
	for (size_t i = 0; i < tree->n; i++) {
		if (n && strcmp(tree->entries[n - 1].name, tree->entries[i].name) == 0)
			entry_clear(&tree->entries[--n]);
		tree->entries[n++] = tree->entries[i];
	}
	tree->n = n;
}

/* What goes through the content of a tree: entries in order, and the pieces of each. */
struct reader {
	int (*entry)(void *arg, const struct build_tree_entry *entry, struct pdk_error *err);
	int (*piece)(void *arg, const void *data, size_t length, struct pdk_error *err);
	void *arg;
};

static int changed(const char *path, struct pdk_error *err)
{
	return pdk_fail(err, -ESTALE, PDK_ABORTED, "%s: it was changed while it was read", path);
}

static int read_file(const struct build_context *context, const struct build_tree_entry *entry,
		     const struct reader *reader, uint8_t *buffer, struct pdk_error *err)
{
	_cleanup_fd_ int fd = open_below(context, entry->path, O_RDONLY | O_NONBLOCK);
	uint64_t left = entry->bytes;
	struct stat st;

	if (fd < 0)
		return pdk_fail_errno(err, fd, "%s", entry->path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != left)
		return changed(entry->path, err);
	while (left) {
		ssize_t n = read(fd, buffer, left < PIECE ? (size_t)left : PIECE);
		int rc;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? pdk_fail_errno(err, -errno, "%s", entry->path) : changed(entry->path, err);
		rc = reader->piece(reader->arg, buffer, (size_t)n, err);
		if (rc < 0)
			return rc;
		left -= (uint64_t)n;
	}
	return 0;
}

static int read_tree(const struct build_context *context, const struct build_tree *tree, const struct reader *reader,
		     struct pdk_error *err)
{
	_cleanup_free_ uint8_t *buffer = malloc(PIECE);
	int rc = 0;

	if (!buffer)
		abort();
	for (size_t i = 0; i < tree->n && rc >= 0; i++) {
		rc = reader->entry(reader->arg, &tree->entries[i], err);
		if (rc >= 0 && S_ISREG(tree->entries[i].mode))
			rc = read_file(context, &tree->entries[i], reader, buffer, err);
	}
	return rc;
}

static int hash_piece(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	return EVP_DigestUpdate(arg, data, length) == 1 ? 0 : pdk_fail(err, -EIO, PDK_INTERNAL, "SHA-256 fails");
}

/* Each field ends with a NUL, which none of them has; then comes so much content. */
static int hash_entry(void *arg, const struct build_tree_entry *entry, struct pdk_error *err)
{
	char text[64];
	int rc = hash_piece(arg, entry->name, strlen(entry->name) + 1, err);

	snprintf(text, sizeof(text), "%o %llu", entry->mode, (unsigned long long)entry->bytes);
	if (rc >= 0)
		rc = hash_piece(arg, text, strlen(text) + 1, err);
	return rc < 0 || !entry->link ? rc : hash_piece(arg, entry->link, strlen(entry->link) + 1, err);
}

static EVP_MD_CTX *hash_begin(void)
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();

	if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		abort();
	return digest;
}

static void hash_end(EVP_MD_CTX *digest, char ret[65])
{
	uint8_t bytes[EVP_MAX_MD_SIZE];

	if (EVP_DigestFinal_ex(digest, bytes, NULL) != 1)
		abort();
	hex_encode(bytes, 32, ret);
	EVP_MD_CTX_free(digest);
}

int build_context_collect(const struct build_context *context, char *const *sources, size_t n, bool to_folder,
			  struct build_tree *ret, struct pdk_error *err)
{
	struct reader reader = {.entry = hash_entry, .piece = hash_piece};
	struct build_tree tree = {};
	struct paths paths = {};
	bool alone;
	int rc = 0;

	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = find_source(context, sources[i], &paths, err);
	alone = n == 1 && paths.n == 1 && !strpbrk(sources[0], "*?[") && !is_folder(context, paths.item[0]);
	if (rc >= 0 && n > 1 && !to_folder)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "several sources need a target that ends with '/'");
	if (rc >= 0 && !alone)
		add_entry(&tree, FOLDER, "")->mode = S_IFDIR | 0755;
	for (size_t i = 0; i < paths.n && rc >= 0; i++)
		rc = add_source(context, &tree, paths.item[i], alone, err);
	if (rc >= 0) {
		sort_entries(&tree);
		snprintf(tree.source, sizeof(tree.source), "%s", tree.entries[0].name);
		reader.arg = hash_begin();
		rc = read_tree(context, &tree, &reader, err);
		hash_end(reader.arg, tree.hash);
	}
	paths_clear(&paths);
	if (rc < 0)
		build_tree_clear(&tree);
	else
		*ret = tree;
	return rc;
}

void build_tree_clear(struct build_tree *tree)
{
	for (size_t i = 0; i < tree->n; i++)
		entry_clear(&tree->entries[i]);
	free(tree->entries);
	*tree = (struct build_tree){};
}

/* --- the tar --- */

struct packing {
	struct archive *out;
	struct archive_entry *entry;
	EVP_MD_CTX *digest;
	archive_sink sink;
	void *arg;
	struct pdk_error err; /* of the sink: libarchive's own text would hide its cause */
	int rc;
};

static la_ssize_t pack_out(struct archive *archive, void *arg, const void *data, size_t length)
{
	struct packing *packing = arg;

	packing->rc = packing->sink(packing->arg, data, length, &packing->err);
	if (packing->rc >= 0)
		return (la_ssize_t)length;
	archive_set_error(archive, -packing->rc, "write");
	return -1;
}

static int pack_fail(const struct packing *packing, struct pdk_error *err)
{
	const char *text = archive_error_string(packing->out);

	if (packing->rc < 0)
		return pdk_fail(err, packing->rc, packing->err.code, "%s", packing->err.text);
	return pdk_fail(err, -EIO, PDK_INTERNAL, "tar: %s", text ? text : "it failed");
}

static int pack_entry(void *arg, const struct build_tree_entry *from, struct pdk_error *err)
{
	struct packing *packing = arg;

	archive_entry_clear(packing->entry);
	archive_entry_set_pathname(packing->entry, from->name);
	archive_entry_set_mode(packing->entry, from->mode);
	archive_entry_set_size(packing->entry, (int64_t)from->bytes);
	if (from->link)
		archive_entry_set_symlink(packing->entry, from->link);
	if (archive_write_header(packing->out, packing->entry) < ARCHIVE_WARN)
		return pack_fail(packing, err);
	return hash_entry(packing->digest, from, err);
}

static int pack_piece(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	struct packing *packing = arg;

	if (archive_write_data(packing->out, data, length) != (la_ssize_t)length)
		return pack_fail(packing, err);
	return hash_piece(packing->digest, data, length, err);
}

int build_context_pack(const struct build_context *context, const struct build_tree *tree, archive_sink sink, void *arg,
		       struct pdk_error *err)
{
	struct packing packing = {.sink = sink, .arg = arg, .digest = hash_begin()};
	const struct reader reader = {.entry = pack_entry, .piece = pack_piece, .arg = &packing};
	char hash[65];
	int rc;

	packing.out = archive_write_new();
	packing.entry = archive_entry_new();
	if (!packing.out || !packing.entry)
		abort();
	archive_write_set_format_pax_restricted(packing.out);
	archive_write_set_bytes_per_block(packing.out, PIECE);
	archive_write_set_bytes_in_last_block(packing.out, 1);
	if (archive_write_open(packing.out, &packing, NULL, pack_out, NULL) != ARCHIVE_OK)
		rc = pack_fail(&packing, err);
	else
		rc = read_tree(context, tree, &reader, err);
	if (rc >= 0 && archive_write_close(packing.out) != ARCHIVE_OK)
		rc = pack_fail(&packing, err);
	hash_end(packing.digest, hash);
	if (rc >= 0 && strcmp(hash, tree->hash) != 0)
		rc = pdk_fail(err, -ESTALE, PDK_ABORTED, "the files were changed while they were read");
	archive_entry_free(packing.entry);
	archive_write_free(packing.out);
	return rc;
}
