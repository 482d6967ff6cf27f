/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernels of this process, by the SHA-256 of all that they are made from: the prelude,
 * the generated text, tracking or not, flags, compiler, and emuV's version.
 *
 * Invariants
 *   - jit_lock guards the table; compiling and loading go on without it.  The first who
 *     asks for a key makes it, the others wait for that one.
 *   - A kernel stays loaded while somebody holds it; sim_lock may be held while one is
 *     given back, and is never taken here.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "jit.h"
#include "ptx/ptx.h"

#define BUCKETS 256

struct sim_jit {
	sim_jit_t *next;
	unsigned char key[SHA256_BYTES];
	unsigned int holders;
	bool ready;
	CUresult result; /* when ready */
	void *library;
	const emuv_kernel_t *kernel;
};

static sim_jit_t *table[BUCKETS];
static pthread_mutex_t jit_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t jit_made = PTHREAD_COND_INITIALIZER;

static void make_key(const char *text, bool track, unsigned char key[SHA256_BYTES])
{
	const char *parts[] = { EMUV_VERSION, sim_compiler()->identity, sim_compiler_flags(),
				emuv_kernel_prelude, track ? "1" : "0", text };
	sha256_t hash;

	sha256_begin(&hash);
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		sha256_add(&hash, parts[i], strlen(parts[i]) + 1);
	sha256_end(&hash, key);
}

static bool write_source(const char *path, const char *text, bool track)
{
	int fd = sim_cache_create(path);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	bool good;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	fprintf(file, "#define EMUV_TRACK %d\n", track);
	fputs(emuv_kernel_prelude, file);
	fputs("\n#line 1 \"kernel\"\n", file);
	fputs(text, file);
	good = !ferror(file);
	return fclose(file) == 0 && good;
}

/* The first line of the compiler's words that says what is wrong. */
static void first_error(const char *log, char line[160])
{
	FILE *file = fopen(log, "re");
	char text[512];

	line[0] = '\0';
	while (file && fgets(text, sizeof(text), file)) {
		text[strcspn(text, "\n")] = '\0';
		if (!line[0] || (strstr(text, "rror") && !strstr(line, "rror")))
			snprintf(line, 160, "%.159s", text);
	}
	if (file)
		fclose(file);
}

static bool load(sim_jit_t *jit, const char *path, bool track, const char *kernel)
{
	const emuv_kernel_t *found;

	jit->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	found = jit->library ? dlsym(jit->library, "emuv_kernel") : NULL;
	if (found && found->version == EMUV_KERNEL_VERSION && found->track == track &&
	    (found->flags & EMUV_KERNEL_SYNC ? !!found->thread : !!found->block)) {
		jit->kernel = found;
		jit->result = CUDA_SUCCESS;
		return true;
	}
	sim_say("error: kernel \"%.100s\" does not load: %.200s", kernel,
		jit->library ? "it is none of this version" : dlerror());
	if (jit->library)
		dlclose(jit->library);
	jit->library = NULL;
	return false;
}

static void complain(sim_compile_t how, const char *kernel, const char *source, const char *log)
{
	char line[160];

	first_error(log, line);
	if (how == COMPILE_SLOW)
		sim_say("error: %.100s took more than two minutes for kernel \"%.100s\": %.200s",
			sim_compiler()->path, kernel, source);
	else if (how == COMPILE_FAILED)
		sim_say("error: %.100s could not be started for kernel \"%.100s\": %s",
			sim_compiler()->path, kernel, strerror(errno));
	else
		sim_say("internal error: %.60s does not compile kernel \"%.80s\", kept as %.150s: %s",
			sim_compiler()->path, kernel, source, line);
}

static CUresult make(sim_jit_t *jit, const char *text, const char *kernel, bool track,
		     const sim_cache_t *cache)
{
	static _Atomic unsigned int counter;
	char path[CACHE_PATH_BYTES], source[CACHE_PATH_BYTES], made[CACHE_PATH_BYTES],
		log[CACHE_PATH_BYTES], name[2 * SHA256_BYTES + 1];
	unsigned int number = atomic_fetch_add(&counter, 1);
	sim_compile_t how;
	bool loaded;

	for (int i = 0; i < SHA256_BYTES; i++)
		snprintf(name + 2 * i, 3, "%02x", jit->key[i]);
	snprintf(path, sizeof(path), "%s/emuv-%s.so", cache->folder, name);
	if (!cache->temporary && sim_cache_valid(path, jit->key) && load(jit, path, track, kernel))
		return CUDA_SUCCESS;
	if (!sim_compiler()->path[0]) {
		static _Atomic bool said;

		if (!atomic_exchange(&said, true))
			sim_say("error: kernel \"%.100s\" needs a C compiler, and there is none (%s): "
				"install one (Debian: apt-get install gcc libc6-dev) or set "
				"EMUV_SIM_CC", kernel,
				sim_config.compiler[0] ? sim_config.compiler : "cc, gcc, clang");
		return CUDA_ERROR_JIT_COMPILER_NOT_FOUND;
	}
	snprintf(source, sizeof(source), "%s/emuv-%.16s-%d-%u.c", cache->folder, name, (int)getpid(),
		 number);
	snprintf(made, sizeof(made), "%s/emuv-%.16s-%d-%u.so", cache->folder, name, (int)getpid(),
		 number);
	snprintf(log, sizeof(log), "%s/emuv-%.16s-%d-%u.log", cache->folder, name, (int)getpid(),
		 number);
	if (!write_source(source, text, track)) {
		sim_say("error: kernel \"%.100s\": cannot write %.200s: %s", kernel, source,
			strerror(errno));
		unlink(source);
		return CUDA_ERROR_OPERATING_SYSTEM;
	}
	how = sim_compiler_run(source, made, log);
	if (how != COMPILE_DONE) {
		complain(how, kernel, source, log);
		unlink(made);
		unlink(log);
		return CUDA_ERROR_LAUNCH_FAILED;
	}
	unlink(log);
	unlink(source);
	if (!sim_cache_keep(made, path, jit->key)) {
		sim_say("error: kernel \"%.100s\": cannot write %.200s: %s", kernel, path,
			strerror(errno));
		unlink(made);
		return CUDA_ERROR_OPERATING_SYSTEM;
	}
	loaded = load(jit, path, track, kernel);
	if (cache->temporary)
		unlink(path);
	return loaded ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

static sim_jit_t **place(const unsigned char key[SHA256_BYTES])
{
	sim_jit_t **at = &table[key[0]];

	while (*at && memcmp((*at)->key, key, SHA256_BYTES) != 0)
		at = &(*at)->next;
	return at;
}

/* jit_lock held. */
static void give(sim_jit_t *jit)
{
	sim_jit_t **at;

	if (--jit->holders)
		return;
	at = place(jit->key);
	*at = jit->next;
	if (jit->library)
		dlclose(jit->library);
	free(jit);
}

void sim_jit_give(sim_jit_t *jit)
{
	if (!jit)
		return;
	pthread_mutex_lock(&jit_lock);
	give(jit);
	pthread_mutex_unlock(&jit_lock);
}

const emuv_kernel_t *sim_jit_kernel(const sim_jit_t *jit)
{
	return jit->kernel;
}

sim_jit_t *sim_jit_take(const char *text, const char *kernel, bool track, CUresult *why)
{
	unsigned char key[SHA256_BYTES];
	sim_cache_t cache;
	sim_jit_t *jit;
	CUresult result;

	make_key(text, track, key);
	pthread_mutex_lock(&jit_lock);
	jit = *place(key);
	if (!jit) {
		jit = calloc(1, sizeof(*jit));
		if (!jit) {
			pthread_mutex_unlock(&jit_lock);
			*why = CUDA_ERROR_OUT_OF_MEMORY;
			return NULL;
		}
		memcpy(jit->key, key, sizeof(key));
		jit->holders = 1;
		*place(key) = jit;
		pthread_mutex_unlock(&jit_lock);
		result = CUDA_ERROR_OPERATING_SYSTEM;
		if (sim_cache_open(&cache)) {
			result = make(jit, text, kernel, track, &cache);
			sim_cache_close(&cache);
		}
		pthread_mutex_lock(&jit_lock);
		jit->result = result;
		jit->ready = true;
		pthread_cond_broadcast(&jit_made);
	} else {
		jit->holders++;
		while (!jit->ready)
			pthread_cond_wait(&jit_made, &jit_lock);
	}
	*why = jit->result;
	if (jit->result != CUDA_SUCCESS) {
		give(jit);
		jit = NULL;
	}
	pthread_mutex_unlock(&jit_lock);
	return jit;
}
