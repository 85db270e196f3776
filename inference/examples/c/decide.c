/*
 * Decides states by a released model: ./decide FOLDER [exact|certified [TARGET_FPR|- [KEYS]]] < states.txt
 *
 * A state is a line: which actions are allowed, a digit 0 or 1 for each or "-" for all of them, and then INDEX:VALUE of what is
 * not 0. A line goes out for each: the action, its margin, whether it is certified, the bound, the model, all q-values. Without
 * a target false-positive rate, or with "-" for it, a state's own cost counts. With a file or folder of public keys, a release
 * that none of them signed is refused.
 */
#include <bellwether.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ACTIONS 64

static const bellwether_api_v1 *api;

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, api->error_message());
  return EXIT_FAILURE;
}

/* Reads a line into a state and a mask; returns whether a mask was given, or -1 for a line that is none. */
static int parse(char *line, float *state, size_t width, uint8_t *mask, size_t actions) {
  int given;
  char *word = strtok(line, " \n");
  if (word == NULL) {
    return -1;
  }
  given = strcmp(word, "-") != 0;
  if (given && strlen(word) != actions) {
    return -1;
  }
  for (size_t action = 0; given && action < actions; action++) {
    mask[action] = word[action] == '1';
  }
  memset(state, 0, width * sizeof *state);
  while ((word = strtok(NULL, " \n")) != NULL) {
    char *end;
    unsigned long index = strtoul(word, &end, 10);
    if (*end != ':' || index >= width) {
      return -1;
    }
    state[index] = strtof(end + 1, &end);
    if (*end != '\0') {
      return -1;
    }
  }
  return given;
}

static int decide_all(const bellwether_policy *policy, bellwether_decider *decider, const bellwether_status *status) {
  static char line[1 << 16];
  float q_values[MAX_ACTIONS];
  uint8_t mask[MAX_ACTIONS];
  float *state = calloc(status->width, sizeof *state);
  int result = state == NULL ? EXIT_FAILURE : EXIT_SUCCESS;
  for (unsigned long number = 1; result == EXIT_SUCCESS && fgets(line, sizeof line, stdin) != NULL; number++) {
    bellwether_decision decision;
    int given = parse(line, state, status->width, mask, status->actions);
    if (given < 0) {
      fprintf(stderr, "line %lu is no state\n", number);
      result = EXIT_FAILURE;
    } else if (api->decide(decider, state, status->width, given ? mask : NULL, given ? status->actions : 0, NULL,
                           &decision, q_values, status->actions) != BELLWETHER_CODE_OK) {
      result = failed("decide");
    } else {
      printf("%s %.9g %d %.9g ", api->policy_action_name(policy, decision.action), decision.margin,
             decision.certified, decision.bound);
      for (size_t byte = 0; byte < sizeof decision.model_version; byte++) {
        printf("%02x", decision.model_version[byte]);
      }
      for (size_t action = 0; action < status->actions; action++) {
        printf(" %.9g", q_values[action]);
      }
      putchar('\n');
    }
  }
  free(state);
  return result;
}

int main(int argc, char **argv) {
  bellwether_options options = {.size = sizeof options};
  bellwether_status status = {.size = sizeof status};
  bellwether_policy *policy = NULL;
  bellwether_decider *decider = NULL;
  int result;
  if (argc < 2) {
    fprintf(stderr, "usage: %s FOLDER [exact|certified [TARGET_FPR|- [KEYS]]] < states.txt\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (argc > 2 && strcmp(argv[2], "exact") == 0) {
    options.precision = BELLWETHER_PRECISION_EXACT;
  }
  options.trusted_keys = argc > 4 ? argv[4] : NULL;
  api = bellwether_get_api(BELLWETHER_API_VERSION);
  if (api == NULL) {
    fprintf(stderr, "the library has no version %d of its interface\n", BELLWETHER_API_VERSION);
    return EXIT_FAILURE;
  }
  if (api->policy_open(argv[1], &options, &policy) != BELLWETHER_CODE_OK) {
    return failed("policy_open");
  }
  if (api->policy_status(policy, &status) != BELLWETHER_CODE_OK || status.actions > MAX_ACTIONS) {
    result = failed("policy_status");
  } else if (api->decider_create(policy, &decider) != BELLWETHER_CODE_OK) {
    result = failed("decider_create");
  } else if (argc > 3 && strcmp(argv[3], "-") != 0 && api->decider_set_target_fpr(decider, atof(argv[3])) != BELLWETHER_CODE_OK) {
    result = failed("decider_set_target_fpr");
  } else {
    result = decide_all(policy, decider, &status);
  }
  /* In any order; NULL is left alone. */
  api->decider_free(decider);
  api->policy_close(policy);
  return result;
}
