/*
 * What a program in C can do wrong, and what several threads do at once: ./edges FOLDER OTHER_FOLDER MISSING_FOLDER
 *
 * Built with sanitizers, so that memory which is used after it was given back, or never given back, ends it.
 */
#include <bellwether.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 512
#define ACTIONS 5
#define THREADS 4
#define SWAPS 50

static const bellwether_api_v1 *api;

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      fprintf(stderr, "%s:%d: %s; %s\n", __FILE__, __LINE__, #condition, api->error_message());   \
      exit(EXIT_FAILURE);                                                                        \
    }                                                                                            \
  } while (0)

#define EXPECT(code, call) CHECK((call) == BELLWETHER_CODE_##code)

/* What one model makes of one state. */
typedef struct {
  bellwether_decision decision;
  float q_values[ACTIONS];
} answer;

typedef struct {
  bellwether_decider *decider;
  const float *state;
  const answer *models;
  atomic_int *stop;
  unsigned long seen[2];
} worker;

static bellwether_policy *open_policy(const char *folder) {
  bellwether_policy *policy = NULL;
  EXPECT(OK, api->policy_open(folder, NULL, &policy));
  return policy;
}

static bellwether_decider *create(const bellwether_policy *policy) {
  bellwether_decider *decider = NULL;
  EXPECT(OK, api->decider_create(policy, &decider));
  return decider;
}

static answer decide(bellwether_decider *decider, const float *state) {
  answer found;
  memset(&found, 0, sizeof found);
  EXPECT(OK, api->decide(decider, state, WIDTH, NULL, 0, NULL, &found.decision, found.q_values, ACTIONS));
  return found;
}

static int same(const answer *one, const answer *other) { return memcmp(one, other, sizeof *one) == 0; }

static void refusals(const char *folder, const char *missing) {
  bellwether_policy *policy = NULL;
  bellwether_options later = {.size = sizeof later, .isa = 77};
  bellwether_decision decision;
  float *state = calloc(WIDTH, sizeof *state);
  uint8_t mask[ACTIONS] = {0};
  CHECK(state != NULL);
  EXPECT(RELEASE_IO, api->policy_open(missing, NULL, &policy));
  CHECK(policy == NULL && strstr(api->error_message(), missing) != NULL);
  EXPECT(NULL_POINTER, api->policy_open(NULL, NULL, &policy));
  EXPECT(NULL_POINTER, api->policy_open(folder, NULL, NULL));
  EXPECT(INVALID_ARGUMENT, api->policy_open(folder, &later, &policy));
  CHECK(strcmp(api->error_name(BELLWETHER_CODE_PINNED), "pinned") == 0 && api->error_name(-7) == NULL);

  policy = open_policy(folder);
  bellwether_decider *decider = create(policy);
  EXPECT(STATE_WIDTH, api->decide(decider, state, WIDTH - 1, NULL, 0, NULL, &decision, NULL, 0));
  EXPECT(MASK_WIDTH, api->decide(decider, state, WIDTH, mask, ACTIONS - 1, NULL, &decision, NULL, 0));
  EXPECT(EMPTY_MASK, api->decide(decider, state, WIDTH, mask, ACTIONS, NULL, &decision, NULL, 0));
  mask[2] = 3;
  EXPECT(INVALID_ARGUMENT, api->decide(decider, state, WIDTH, mask, ACTIONS, NULL, &decision, NULL, 0));
  state[9] = NAN;
  EXPECT(NON_FINITE_STATE, api->decide(decider, state, WIDTH, NULL, 0, NULL, &decision, NULL, 0));
  CHECK(strstr(api->error_message(), "value 9") != NULL);
  state[9] = -1;
  EXPECT(STATE_OUT_OF_RANGE, api->decide(decider, state, WIDTH, NULL, 0, NULL, &decision, NULL, 0));
  state[9] = 0;
  EXPECT(MISALIGNED, api->decide(decider, (const float *)(const void *)((const char *)state + 2), WIDTH - 1, NULL, 0,
                                 NULL, &decision, NULL, 0));
  mask[2] = 1;
  EXPECT(OK, api->decide(decider, state, WIDTH, mask, ACTIONS, NULL, &decision, NULL, 0));
  CHECK(decision.action == 2 && isinf(decision.margin) && decision.role == BELLWETHER_ROLE_CHAMPION);

  /* A caller of a header in which the struct was shorter: nothing past it is touched. */
  size_t *words = malloc(2 * sizeof *words);
  CHECK(words != NULL);
  words[0] = 2 * sizeof *words;
  EXPECT(OK, api->policy_status(policy, (bellwether_status *)(void *)words));
  CHECK(words[0] == 2 * sizeof *words && words[1] == WIDTH);
  free(words);

  bellwether_metrics metrics = {.size = sizeof metrics};
  EXPECT(OK, api->policy_metrics(policy, &metrics));
  CHECK(metrics.decisions == 1 && metrics.refusals[0] == 1);
  CHECK(metrics.refusals[BELLWETHER_CODE_NON_FINITE_STATE - BELLWETHER_CODE_STATE_WIDTH] == 1);
  EXPECT(OK, api->decider_free(decider));
  EXPECT(OK, api->policy_close(policy));
  EXPECT(OK, api->decider_free(NULL));
  EXPECT(OK, api->policy_close(NULL));
  free(state);
}

/* A decider goes on when the policy's handle is closed, and so does the policy when a decider is freed. */
static void orders(const char *folder, const float *state) {
  bellwether_policy *policy = open_policy(folder);
  bellwether_decider *first = create(policy);
  bellwether_decider *second = create(policy);
  answer before = decide(first, state);
  EXPECT(OK, api->decider_free(first));
  EXPECT(OK, api->policy_close(policy));
  answer after = decide(second, state);
  CHECK(same(&before, &after));
  EXPECT(OK, api->decider_free(second));
}

static void batches(const char *folder, const float *state) {
  bellwether_policy *policy = open_policy(folder);
  bellwether_decider *decider = create(policy);
  answer alone = decide(decider, state);
  enum { ROWS = 3 };
  float *states = malloc(ROWS * WIDTH * sizeof *states);
  float *q_values = malloc(ROWS * ACTIONS * sizeof *q_values);
  bellwether_decision *decisions = malloc(ROWS * sizeof *decisions);
  CHECK(states != NULL && q_values != NULL && decisions != NULL);
  for (size_t row = 0; row < ROWS; row++) {
    memcpy(states + row * WIDTH, state, WIDTH * sizeof *state);
  }
  states[WIDTH] = INFINITY;
  EXPECT(NON_FINITE_STATE, api->decide_batch(decider, states, ROWS * WIDTH, NULL, 0, decisions, ROWS, q_values,
                                             ROWS * ACTIONS));
  CHECK(strstr(api->error_message(), "row 1") != NULL && decisions[1].code == BELLWETHER_CODE_NON_FINITE_STATE);
  for (size_t row = 0; row < ROWS; row += 2) {
    CHECK(memcmp(&decisions[row], &alone.decision, sizeof alone.decision) == 0);
    CHECK(memcmp(q_values + row * ACTIONS, alone.q_values, sizeof alone.q_values) == 0);
  }
  EXPECT(BATCH_SHAPE, api->decide_batch(decider, states, ROWS * WIDTH, NULL, 0, decisions, ROWS - 1, NULL, 0));
  EXPECT(BUFFER_TOO_SMALL, api->decide_batch(decider, states, ROWS * WIDTH, NULL, 0, decisions, ROWS, q_values, 1));
  free(states);
  free(q_values);
  free(decisions);
  EXPECT(OK, api->decider_free(decider));
  EXPECT(OK, api->policy_close(policy));
}

static void *work(void *argument) {
  worker *self = argument;
  /* Each thread has a message of its own. */
  CHECK(api->error_message()[0] == '\0');
  while (!atomic_load(self->stop) || self->seen[0] + self->seen[1] == 0) {
    answer found = decide(self->decider, self->state);
    int model = memcmp(found.decision.model_version, self->models[0].decision.model_version, 8) == 0 ? 0 : 1;
    /* Each decision is made by one model from end to end. */
    CHECK(same(&found, &self->models[model]));
    self->seen[model]++;
  }
  EXPECT(OK, api->decider_free(self->decider));
  return NULL;
}

/* Four threads decide while the model is swapped under them, and the policy's handle goes before they do. */
static void threads(const char *const folders[2], const float *state) {
  answer models[2];
  pthread_t ids[THREADS];
  worker workers[THREADS];
  atomic_int stop = 0;
  for (int model = 0; model < 2; model++) {
    bellwether_policy *alone = open_policy(folders[model]);
    bellwether_decider *decider = create(alone);
    models[model] = decide(decider, state);
    EXPECT(OK, api->decider_free(decider));
    EXPECT(OK, api->policy_close(alone));
  }
  CHECK(!same(&models[0], &models[1]));
  bellwether_policy *policy = open_policy(folders[0]);
  for (int index = 0; index < THREADS; index++) {
    worker fresh = {create(policy), state, models, &stop, {0, 0}};
    workers[index] = fresh;
    CHECK(pthread_create(&ids[index], NULL, work, &workers[index]) == 0);
  }
  for (int swap = 1; swap <= SWAPS; swap++) {
    EXPECT(OK, api->policy_swap(policy, folders[swap % 2]));
  }
  EXPECT(OK, api->policy_roll_back(policy));
  EXPECT(OK, api->policy_pin(policy));
  EXPECT(PINNED, api->policy_swap(policy, folders[0]));
  bellwether_status status = {.size = sizeof status};
  EXPECT(OK, api->policy_status(policy, &status));
  CHECK(status.swaps == SWAPS && status.rollbacks == 1 && status.pinned == 1 && status.deciders == THREADS);
  EXPECT(OK, api->policy_close(policy));
  atomic_store(&stop, 1);
  unsigned long seen = 0;
  for (int index = 0; index < THREADS; index++) {
    CHECK(pthread_join(ids[index], NULL) == 0);
    seen += workers[index].seen[0] + workers[index].seen[1];
  }
  CHECK(seen >= THREADS);
}

int main(int argc, char **argv) {
  float state[WIDTH];
  if (argc != 4) {
    return EXIT_FAILURE;
  }
  api = bellwether_get_api(BELLWETHER_API_VERSION);
  if (api == NULL || bellwether_get_api(0) != NULL || api->size < sizeof *api) {
    return EXIT_FAILURE;
  }
  for (size_t index = 0; index < WIDTH; index++) {
    state[index] = index % 5 == 0 ? (float)(index % 11) / 11 : 0;
  }
  const char *const folders[2] = {argv[1], argv[2]};
  refusals(argv[1], argv[3]);
  orders(argv[1], state);
  batches(argv[1], state);
  threads(folders, state);
  puts("done");
  return EXIT_SUCCESS;
}
