/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * User objects: what a program wants kept as long as graphs that use it.
 *
 * An object has references of the program's and of graphs, of clones and instantiated
 * ones too, and of launches that are not done.  Its destructor is called when the last
 * one goes, without sim_lock: at the end of the call that dropped it, or by an
 * executor's thread; it must not call CUDA.
 */
#include <stdlib.h>

#include "graph.h"
#include "order.h"

struct sim_user_object {
	sim_object_t object;
	sim_user_object_t *next; /* of those whose destructor is due */
	uint64_t references; /* all */
	uint64_t owned;      /* of these: the program's own, which it may release */
	CUhostFn destroy;
	void *data;
};

static sim_user_object_t *ended;

bool sim_user_objects_due(void)
{
	return ended;
}

static void release(sim_user_object_t *object, uint64_t count)
{
	object->references -= count;
	if (object->references)
		return;
	sim_object_leave(object);
	object->next = ended;
	ended = object;
}

void sim_user_objects_end(void)
{
	for (;;) {
		sim_user_object_t *object;

		sim_lock_take();
		object = ended;
		if (object)
			ended = object->next;
		sim_lock_drop();
		if (!object)
			return;
		if (!sim_exiting) {
			sim_slow++;
			sim_in_callback = true;
			object->destroy(object->data);
			sim_in_callback = false;
			sim_slow--;
		}
		free(object);
	}
}

static bool hold(sim_graph_t *graph, sim_user_object_t *object, unsigned int count)
{
	struct sim_held *held;

	for (held = graph->held; held; held = held->next)
		if (held->object == object)
			break;
	if (!held) {
		held = calloc(1, sizeof(*held));
		if (!held)
			return false;
		held->object = object;
		held->next = graph->held;
		graph->held = held;
	}
	held->count += count;
	return true;
}

void sim_user_objects_share(sim_graph_t *to, const sim_graph_t *from)
{
	for (const struct sim_held *held = from->held; held; held = held->next)
		if (hold(to, held->object, held->count))
			held->object->references += held->count;
}

void sim_user_objects_drop(sim_graph_t *graph)
{
	while (graph->held) {
		struct sim_held *held = graph->held;

		graph->held = held->next;
		release(held->object, held->count);
		free(held);
	}
}

SIM_API(cuUserObjectCreate, CUuserObject *handle, void *data, CUhostFn destroy, unsigned int count,
	unsigned int flags)
{
	sim_user_object_t *object;

	SIM_ENTER(cuUserObjectCreate);
	if (!handle || !destroy || !count || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	object = sim_object_new(SIM_USER_OBJECT, sizeof(*object), NULL);
	if (object) {
		object->references = object->owned = count;
		object->destroy = destroy;
		object->data = data;
	}
	sim_lock_drop();
	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUuserObject)object;
	return CUDA_SUCCESS;
}

static CUresult change(CUuserObject handle, unsigned int count, bool more)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_user_object_t *object;

	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	object = sim_object_get(handle, SIM_USER_OBJECT);
	if (object && more) {
		result = CUDA_SUCCESS;
		object->references += count;
		object->owned += count;
	} else if (object && count <= object->owned) {
		result = CUDA_SUCCESS;
		object->owned -= count;
		release(object, count);
	}
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}

SIM_API(cuUserObjectRetain, CUuserObject object, unsigned int count)
{
	SIM_ENTER(cuUserObjectRetain);
	return change(object, count, true);
}

SIM_API(cuUserObjectRelease, CUuserObject object, unsigned int count)
{
	SIM_ENTER(cuUserObjectRelease);
	return change(object, count, false);
}

SIM_API(cuGraphRetainUserObject, CUgraph handle, CUuserObject object_handle, unsigned int count,
	unsigned int flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_user_object_t *object;
	sim_graph_t *graph;

	SIM_ENTER(cuGraphRetainUserObject);
	if (!count || flags & ~(unsigned int)CU_GRAPH_USER_OBJECT_MOVE)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	object = sim_object_get(object_handle, SIM_USER_OBJECT);
	graph = sim_graph_get(handle, &result);
	if (object && graph && (!flags || count <= object->owned)) {
		result = hold(graph, object, count) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
		/* Moved references were the caller's own. */
		if (result == CUDA_SUCCESS && flags)
			object->owned -= count;
		else if (result == CUDA_SUCCESS)
			object->references += count;
	}
	sim_lock_drop();
	return result;
}

SIM_API(cuGraphReleaseUserObject, CUgraph handle, CUuserObject object_handle, unsigned int count)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	sim_user_object_t *object;
	sim_graph_t *graph;

	SIM_ENTER(cuGraphReleaseUserObject);
	sim_lock_take();
	object = sim_object_get(object_handle, SIM_USER_OBJECT);
	graph = sim_graph_get(handle, &result);
	for (struct sim_held **at = graph && object && count ? &graph->held : NULL; at && *at;
	     at = &(*at)->next) {
		struct sim_held *held = *at;

		if (held->object != object || held->count < count)
			continue;
		held->count -= count;
		if (!held->count) {
			*at = held->next;
			free(held);
		}
		release(object, count);
		result = CUDA_SUCCESS;
		break;
	}
	sim_lock_drop();
	sim_user_objects_end();
	return result;
}
