#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

/*
 * libarchive's pax writer calls this function of libarchive's, whose own copy lies in one object with the table of
 * all formats, and that would bring in every other writer (and libxml2, nettle and more). With ours, the
 * static program holds the tar reader and writer and their filters only. It is called for sockets.
 */
void __archive_write_entry_filetype_unsupported(struct archive *archive, struct archive_entry *entry,
						const char *format);

void __archive_write_entry_filetype_unsupported(struct archive *archive, struct archive_entry *entry,
						const char *format)
{
	archive_set_error(archive, EINVAL, "%s: this kind of file cannot be in a %s archive",
			  archive_entry_pathname(entry), format);
}
