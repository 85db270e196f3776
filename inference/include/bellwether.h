/* The C ABI of the policy runtime: docs/c-abi.md. Written by `cargo xtask tidy --write` from inference/src/ffi; do not edit. */

#ifndef BELLWETHER_H
#define BELLWETHER_H

#include <stddef.h>
#include <stdint.h>

/**
 * The version of the function table that this header describes.
 */
#define BELLWETHER_API_VERSION 1

/**
 * The fastest instruction set of the processor.
 */
#define BELLWETHER_ISA_BEST 0

/**
 * Portable code.
 */
#define BELLWETHER_ISA_SCALAR 1

/**
 * AVX2 with FMA.
 */
#define BELLWETHER_ISA_AVX2 2

/**
 * AVX-512.
 */
#define BELLWETHER_ISA_AVX512 3

/**
 * 16-bit integers where a bound proves that f32 would choose the same action, f32 elsewhere.
 */
#define BELLWETHER_PRECISION_CERTIFIED 0

/**
 * The f32 kernel, always.
 */
#define BELLWETHER_PRECISION_EXACT 1

/**
 * The native engine, which refuses models of general graphs.
 */
#define BELLWETHER_ENGINE_NATIVE 0

/**
 * ONNX Runtime for models of general graphs, the native engine for all others.
 */
#define BELLWETHER_ENGINE_ORT 1

/**
 * For `time_every`: no decision is timed, and no clock is read.
 */
#define BELLWETHER_TIME_NEVER UINT32_MAX

/**
 * The model that decides by default.
 */
#define BELLWETHER_ROLE_CHAMPION 0

/**
 * The model on trial, in its share of the episodes.
 */
#define BELLWETHER_ROLE_CANARY 1

/**
 * Buckets of the latency histogram. Bucket `i` counts decisions of at most 250 ns doubled `i` times and more than the bucket
 * before; the last counts all that took longer.
 */
#define BELLWETHER_LATENCY_BUCKETS 21

/**
 * Reasons for a refusal that the metrics have room for.
 */
#define BELLWETHER_REFUSALS 16

/**
 * Room for the version of a model as text: 16 hexadecimal digits, a NUL, and zeros.
 */
#define BELLWETHER_VERSION_TEXT 24

/**
 * How a call ended. Numbers are never given another meaning; a later library can return ones that are not listed here.
 */
enum bellwether_code
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  BELLWETHER_CODE_OK = 0,
  /**
   * A pointer that must point to something is NULL.
   */
  BELLWETHER_CODE_NULL_POINTER = 1,
  /**
   * A pointer is not aligned as its type wants.
   */
  BELLWETHER_CODE_MISALIGNED = 2,
  /**
   * An argument has a value that it cannot have; the message names it.
   */
  BELLWETHER_CODE_INVALID_ARGUMENT = 3,
  /**
   * A text is not UTF-8.
   */
  BELLWETHER_CODE_INVALID_UTF8 = 4,
  /**
   * A buffer is too small; the message says what it must hold.
   */
  BELLWETHER_CODE_BUFFER_TOO_SMALL = 5,
  /**
   * The decider is in a call on another thread. A thread wants a decider of its own.
   */
  BELLWETHER_CODE_BUSY = 6,
  /**
   * The library failed an assertion of its own. The process goes on; free the handle that was in the call, and report it.
   */
  BELLWETHER_CODE_PANIC = 7,
  /**
   * The state has another width than the model.
   */
  BELLWETHER_CODE_STATE_WIDTH = 20,
  /**
   * The mask has another length than the model has actions.
   */
  BELLWETHER_CODE_MASK_WIDTH = 21,
  /**
   * The mask allows no action.
   */
  BELLWETHER_CODE_EMPTY_MASK = 22,
  /**
   * A value of the state is infinite or not a number.
   */
  BELLWETHER_CODE_NON_FINITE_STATE = 23,
  /**
   * A value of the state lies outside 0 to 1.
   */
  BELLWETHER_CODE_STATE_OUT_OF_RANGE = 24,
  /**
   * The lengths of a batch do not fit each other.
   */
  BELLWETHER_CODE_BATCH_SHAPE = 25,
  /**
   * The model's own values overflow on this state: do not use the model.
   */
  BELLWETHER_CODE_OVERFLOW = 26,
  /**
   * The decider's memory is too small for the model, which does not happen.
   */
  BELLWETHER_CODE_SCRATCH = 27,
  /**
   * ONNX Runtime failed on this state, where it decides.
   */
  BELLWETHER_CODE_ONNX_RUNTIME = 28,
  /**
   * A file of the release cannot be read.
   */
  BELLWETHER_CODE_RELEASE_IO = 40,
  /**
   * `model.json` breaks a rule of its format.
   */
  BELLWETHER_CODE_RELEASE_MANIFEST = 41,
  /**
   * `model.onnx` is another file than the manifest speaks of.
   */
  BELLWETHER_CODE_RELEASE_HASH = 42,
  /**
   * The network breaks a rule of its format, or was made for another contract.
   */
  BELLWETHER_CODE_RELEASE_MODEL = 43,
  /**
   * The manifest and the network are of different models, or of another feature specification.
   */
  BELLWETHER_CODE_RELEASE_BINDING = 44,
  /**
   * The golden vectors do not come out.
   */
  BELLWETHER_CODE_RELEASE_GOLDEN = 45,
  /**
   * This processor lacks the instruction set that was asked for.
   */
  BELLWETHER_CODE_ISA_UNAVAILABLE = 46,
  /**
   * The release is refused for a reason that has no number of its own.
   */
  BELLWETHER_CODE_RELEASE_OTHER = 47,
  /**
   * ONNX Runtime was asked for and is not there: the library was built without it, or its file cannot be loaded.
   */
  BELLWETHER_CODE_ENGINE_UNAVAILABLE = 48,
  /**
   * The trusted keys cannot be read, or there is none among them.
   */
  BELLWETHER_CODE_TRUSTED_KEYS = 49,
  /**
   * The release is not signed, and only signed ones are taken.
   */
  BELLWETHER_CODE_SIGNATURE_MISSING = 50,
  /**
   * `signature.json` is no signature.
   */
  BELLWETHER_CODE_SIGNATURE_MALFORMED = 51,
  /**
   * The release is signed with a key that is not trusted.
   */
  BELLWETHER_CODE_SIGNATURE_UNTRUSTED = 52,
  /**
   * The signature is not one of this release.
   */
  BELLWETHER_CODE_SIGNATURE_INVALID = 53,
  /**
   * The model reads other states or chooses among other actions than what is served.
   */
  BELLWETHER_CODE_CONTRACT = 60,
  /**
   * A hidden layer is wider than the option `hidden_width`.
   */
  BELLWETHER_CODE_TOO_WIDE = 61,
  /**
   * No network has a hidden layer of the width in the option `hidden_width`.
   */
  BELLWETHER_CODE_LIMITS = 62,
  /**
   * The champion is pinned.
   */
  BELLWETHER_CODE_PINNED = 63,
  /**
   * There is no model to return to.
   */
  BELLWETHER_CODE_NO_PREVIOUS = 64,
  /**
   * No canary is served.
   */
  BELLWETHER_CODE_NO_CANARY = 65,
  /**
   * A share is not above 0 and at most 1.
   */
  BELLWETHER_CODE_SHARE = 66,
  /**
   * Too many replaced models are still in use; let decisions and batches end, then try again.
   */
  BELLWETHER_CODE_CROWDED = 67,
  /**
   * The model that decides was not calibrated for the false-positive rate that the decider is to serve.
   */
  BELLWETHER_CODE_TARGET = 68,
  /**
   * Another model became the champion meanwhile.
   */
  BELLWETHER_CODE_CHANGED = 69,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bellwether_code bellwether_code;
#else
typedef int32_t bellwether_code;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A decider: memory and counters of one thread at a time. It may go from thread to thread, and keeps its policy alive.
 */
typedef struct bellwether_decider bellwether_decider;

/**
 * A policy: what is served, and the right to change it. Any number of threads may use one at the same time.
 */
typedef struct bellwether_policy bellwether_policy;

/**
 * How a policy decides. Set `size` to `sizeof(bellwether_options)` and the rest to 0 for the defaults.
 */
typedef struct bellwether_options {
  /**
   * Bytes of this struct. What a longer one of a later header adds must be 0 for this library to take it.
   */
  size_t size;
  /**
   * `BELLWETHER_ISA_...`; by default the fastest. It changes no result of exact decisions.
   */
  uint32_t isa;
  /**
   * `BELLWETHER_PRECISION_...`; by default certified.
   */
  uint32_t precision;
  /**
   * Largest width of a hidden layer that deciders have memory for; 0 stands for 1024.
   */
  uint32_t hidden_width;
  /**
   * Each decider times one decision of so many; 0 stands for 16.
   */
  uint32_t time_every;
  /**
   * A file of public keys, or a folder of them: releases that none of them signed are refused, here and by every later call on
   * the policy. They are read once. NULL takes any release. Older libraries do not know it and refuse it.
   */
  const char *trusted_keys;
  /**
   * `BELLWETHER_ENGINE_...`; by default native. What ONNX Runtime decides allocates and takes a lock.
   */
  uint32_t engine;
  /**
   * Sessions that ONNX Runtime has for each model, so many threads decide at a time; 0 stands for one for each processor.
   */
  uint32_t onnx_runtime_sessions;
  /**
   * The shared library of ONNX Runtime; NULL for the one that the variable `ORT_DYLIB_PATH` names. A process loads one, once.
   */
  const char *onnx_runtime_library;
} bellwether_options;

/**
 * What a policy serves. Set `size` to `sizeof(bellwether_status)` before the call.
 */
typedef struct bellwether_status {
  /**
   * In: bytes of the caller's struct. Out: how many of them were filled.
   */
  size_t size;
  /**
   * Values of a state.
   */
  size_t width;
  /**
   * Number of actions.
   */
  size_t actions;
  /**
   * Version of what decides by default.
   */
  char champion[BELLWETHER_VERSION_TEXT];
  /**
   * Version of what a rollback returns to; empty where there is none.
   */
  char previous[BELLWETHER_VERSION_TEXT];
  /**
   * Version of what is on trial; empty where there is none.
   */
  char canary[BELLWETHER_VERSION_TEXT];
  /**
   * Share of the episodes that the canary decides.
   */
  double canary_share;
  /**
   * 1 where the champion stays until it is unpinned, else 0.
   */
  uint32_t pinned;
  /**
   * Deciders that exist.
   */
  uint32_t deciders;
  /**
   * How often another model became the champion, rollbacks left out.
   */
  uint64_t swaps;
  /**
   * How often the previous model came back.
   */
  uint64_t rollbacks;
  /**
   * Models in memory: those above, and replaced ones that a decision still reads.
   */
  uint64_t models_resident;
} bellwether_status;

/**
 * What all deciders of a policy have counted, those that are gone too. Set `size` to `sizeof(bellwether_metrics)` before the
 * call. Decisions go on meanwhile, so one that is under way may be in one count and not yet in another.
 */
typedef struct bellwether_metrics {
  /**
   * In: bytes of the caller's struct. Out: how many of them were filled.
   */
  size_t size;
  /**
   * Decisions by all models.
   */
  uint64_t decisions;
  /**
   * How many of them had a certificate.
   */
  uint64_t certified;
  /**
   * States that were refused, by reason: the one of code `c` at position `c - BELLWETHER_CODE_STATE_WIDTH`.
   */
  uint64_t refusals[BELLWETHER_REFUSALS];
  /**
   * How long those decisions took that were timed.
   */
  uint64_t latency[BELLWETHER_LATENCY_BUCKETS];
  /**
   * Sum of their times, in nanoseconds.
   */
  uint64_t latency_total_ns;
} bellwether_metrics;

/**
 * A decision. This struct never changes; later versions of the library that say more say it elsewhere.
 */
typedef struct bellwether_decision {
  /**
   * `BELLWETHER_CODE_OK`, or in a batch why there is no decision for this row.
   */
  bellwether_code code;
  /**
   * Number of the action: the allowed one with the largest q-value, the lowest number on a tie.
   */
  uint32_t action;
  /**
   * Lead over the next best allowed action, at least 0; infinite where nothing else is allowed.
   */
  float margin;
  /**
   * How far each q-value can be from the one that the f32 kernel gives: 0 where that kernel decided.
   */
  float bound;
  /**
   * Version of the model that decided: 8 bytes, as hexadecimal digits the text in `bellwether_status`.
   */
  uint8_t model_version[8];
  /**
   * 1 where 16-bit integers decided, under a certificate that the f32 kernel chooses the same action; else 0.
   */
  uint8_t certified;
  /**
   * `BELLWETHER_ROLE_...`
   */
  uint8_t role;
  /**
   * 0.
   */
  uint8_t reserved[6];
} bellwether_decision;

/**
 * The functions of version 1. Later libraries add functions at the end and change none: a caller who needs one that was added
 * checks that `size` reaches past it.
 *
 * Texts that are given are UTF-8 and end with a NUL; so do texts that are returned. A call that fails returns its code, keeps a
 * message for `error_message` and, unless said otherwise, changes nothing. No buffer that is written may overlap another.
 */
typedef struct bellwether_api_v1 {
  /**
   * Bytes of this table.
   */
  size_t size;
  /**
   * The version of the library, such as `0.1.0`. It stays valid.
   */
  const char *(*library_version)(void);
  /**
   * What went wrong in the last call on this thread that failed; empty where none did. It is valid until the next one that
   * fails, and until the thread ends.
   */
  const char *(*error_message)(void);
  /**
   * The name of a code, such as `state_width`; NULL for a number that this library does not know. It stays valid.
   */
  const char *(*error_name)(int32_t code);
  /**
   * Opens the release in a folder, checks everything in it and makes a policy that serves it. `options` may be NULL for the
   * defaults. The policy is written to `opened` and is the caller's, who closes it.
   */
  bellwether_code (*policy_open)(const char *folder,
                                 const struct bellwether_options *options,
                                 struct bellwether_policy **opened);
  /**
   * Gives a policy back. Deciders that were made of it go on: what they need lives until the last of them is freed. NULL is
   * left alone. Nobody may use the handle any more, nor the names of actions that it gave.
   */
  bellwether_code (*policy_close)(struct bellwether_policy *policy);
  /**
   * Makes the release in a folder the champion, after all checks and on the calling thread, while decisions go on: the next
   * ones are its. The champion before is kept for a rollback.
   */
  bellwether_code (*policy_swap)(const struct bellwether_policy *policy, const char *folder);
  /**
   * Makes the previous champion the champion again, once.
   */
  bellwether_code (*policy_roll_back)(const struct bellwether_policy *policy);
  /**
   * Keeps the champion until it is unpinned: swaps, promotions and rollbacks are refused.
   */
  bellwether_code (*policy_pin)(const struct bellwether_policy *policy);
  /**
   * Lets the champion be replaced again.
   */
  bellwether_code (*policy_unpin)(const struct bellwether_policy *policy);
  /**
   * Serves the release in a folder to a share of the episodes, above 0 and at most 1: a canary, in the place of the one before.
   */
  bellwether_code (*policy_try_out)(const struct bellwether_policy *policy, const char *folder, double share);
  /**
   * Gives the canary another share. A larger one keeps the episodes of the smaller.
   */
  bellwether_code (*policy_set_share)(const struct bellwether_policy *policy, double share);
  /**
   * Makes the canary the champion.
   */
  bellwether_code (*policy_promote)(const struct bellwether_policy *policy);
  /**
   * Ends the trial of the canary.
   */
  bellwether_code (*policy_withdraw)(const struct bellwether_policy *policy);
  /**
   * Gives the memory of replaced models back that no decision reads any more. Every change does so at its end; this is for
   * those that a decision still read then.
   */
  bellwether_code (*policy_reap)(const struct bellwether_policy *policy);
  /**
   * Says what is served.
   */
  bellwether_code (*policy_status)(const struct bellwether_policy *policy, struct bellwether_status *status);
  /**
   * Says what was counted.
   */
  bellwether_code (*policy_metrics)(const struct bellwether_policy *policy, struct bellwether_metrics *metrics);
  /**
   * Writes how often each action was decided, by its number, and 0 past the last. `length` is the room in `counts`, at least
   * the number of actions.
   */
  bellwether_code (*policy_action_counts)(const struct bellwether_policy *policy, uint64_t *counts, size_t length);
  /**
   * The name of an action; NULL where there is no such action. It is valid until the policy is closed.
   */
  const char *(*policy_action_name)(const struct bellwether_policy *policy, uint32_t action);
  /**
   * Makes the calling thread ready for deciders that another thread made: its first decision would otherwise allocate once.
   */
  bellwether_code (*policy_warm_thread)(const struct bellwether_policy *policy);
  /**
   * Makes a decider for one thread at a time, ready for the calling thread. It is written to `created` and is the caller's,
   * who frees it.
   */
  bellwether_code (*decider_create)(const struct bellwether_policy *policy, struct bellwether_decider **created);
  /**
   * Gives a decider back. NULL is left alone. Nobody may use the handle any more.
   */
  bellwether_code (*decider_free)(struct bellwether_decider *decider);
  /**
   * Serves a false-positive rate with this decider from now on: every state is decided as if its cost element were the one
   * that the deciding model was calibrated with for this rate, so the right one across swaps. 0 lets the state's own cost
   * count again, as at first. A model that does not know the rate decides nothing: `BELLWETHER_CODE_TARGET`.
   */
  bellwether_code (*decider_set_target_fpr)(struct bellwether_decider *decider, double target_fpr);
  /**
   * Decides one state of `state_length` values, each from 0 to 1, without a lock and without allocating.
   *
   * `mask` holds one byte per action, 1 where it is allowed and 0 where it is not; NULL allows all. `episode` points to a number
   * that is the episode's own, by which a canary is given its share; NULL stands for the champion. `q_values`, where not NULL,
   * gets the q-value of every action; it wants room for as many. A decision of another thread on the same decider is refused
   * with `BELLWETHER_CODE_BUSY`.
   */
  bellwether_code (*decide)(struct bellwether_decider *decider,
                            const float *state,
                            size_t state_length,
                            const uint8_t *mask,
                            size_t mask_length,
                            const uint64_t *episode,
                            struct bellwether_decision *decision,
                            float *q_values,
                            size_t q_values_length);
  /**
   * Decides `rows` states, one after the other in `states`, all by the same champion.
   *
   * `masks`, where not NULL, has the masks one after the other; `q_values`, where not NULL, gets the q-values likewise. A row
   * that is refused has its code in its decision and NaN for its q-values, and the others are decided all the same. The call
   * then returns the code of the first refused row: `EMPTY_MASK`, `NON_FINITE_STATE`, `STATE_OUT_OF_RANGE` or `OVERFLOW`. With
   * any other code but `OK` nothing was written. Without masks a batch larger than all before allocates; nothing else does.
   */
  bellwether_code (*decide_batch)(struct bellwether_decider *decider,
                                  const float *states,
                                  size_t states_length,
                                  const uint8_t *masks,
                                  size_t masks_length,
                                  struct bellwether_decision *decisions,
                                  size_t rows,
                                  float *q_values,
                                  size_t q_values_length);
} bellwether_api_v1;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The table of functions of a version, which stays valid; NULL where this library has no such version. Ask for
 * `BELLWETHER_API_VERSION`. It is the only function that the library exports.
 */
const struct bellwether_api_v1 *bellwether_get_api(uint32_t version);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BELLWETHER_H */
