/*
 * What steps of a build need of this machine's apt: its sources of packages, the keys that they
 * are signed by, credentials, and how they are reached (proxies, certificates).  Copied to a
 * directory that every step with packages is shown, read-only, at APT_CONF_SHOWN; nothing of it
 * gets into an image.
 *
 *   sources/NAME         as in sources.list and sources.list.d, keys named where they are shown
 *   keys/N.EXT           what signed-by names, and certificates
 *   trusted.gpg.d/NAME   the machine's own, trusted.gpg among them
 *   auth/NAME            auth.conf and those below auth.conf.d
 *   apt.conf             what `apt-config dump` says of fetching (Acquire::), and where these are
 *
 * Not taken: preferences (of the machine), private keys, sources on the machine itself (file:,
 * copy:, cdrom:), what other settings run or change.
 */
#ifndef PRATAI_BUILD_APT_CONF_H
#define PRATAI_BUILD_APT_CONF_H

struct egress_names;
struct err;

#define APT_CONF_SHOWN "/tmp/pratai/apt"

/*
 * etc: "/etc"; path: an empty directory.  names: hosts that sources and proxies name are added.
 * ERR_NOT_FOUND: this machine has no source of packages.
 */
int apt_conf_collect(const char *etc, const char *path, struct egress_names *names, struct err *e);

#endif
