// The C ABI with owners and exceptions, for C++17: as much of it as decide.cpp needs. Copy it, and add what you need.
#pragma once

#include <bellwether.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bellwether {

inline const bellwether_api_v1 &api() {
  static const bellwether_api_v1 *table = bellwether_get_api(BELLWETHER_API_VERSION);
  if (table == nullptr) {
    throw std::runtime_error("the library has another version of the interface than the header");
  }
  return *table;
}

struct Error : std::runtime_error {
  explicit Error(bellwether_code code) : std::runtime_error(api().error_message()), code(code) {}
  bellwether_code code;
};

inline void check(bellwether_code code) {
  if (code != BELLWETHER_CODE_OK) {
    throw Error(code);
  }
}

struct Close {
  void operator()(bellwether_policy *policy) const { api().policy_close(policy); }
  void operator()(bellwether_decider *decider) const { api().decider_free(decider); }
};

struct Answer {
  bellwether_decision decision;
  std::vector<float> q_values;
};

// Belongs to one thread at a time; may outlive its policy.
class Decider {
 public:
  Decider(bellwether_decider *handle, std::size_t actions) : handle_(handle), answer_{{}, std::vector<float>(actions)} {}

  // 0 for none: the state's own cost counts.
  void set_target_fpr(double target_fpr) { check(api().decider_set_target_fpr(handle_.get(), target_fpr)); }

  // Without a mask all actions are allowed. The answer is overwritten by the next.
  const Answer &decide(const std::vector<float> &state, const std::vector<std::uint8_t> *mask = nullptr,
                       std::optional<std::uint64_t> episode = std::nullopt) {
    check(api().decide(handle_.get(), state.data(), state.size(), mask ? mask->data() : nullptr, mask ? mask->size() : 0,
                       episode ? &*episode : nullptr, &answer_.decision, answer_.q_values.data(),
                       answer_.q_values.size()));
    return answer_;
  }

 private:
  std::unique_ptr<bellwether_decider, Close> handle_;
  Answer answer_;
};

// May be used by any number of threads at once.
class Policy {
 public:
  explicit Policy(const std::string &folder, bellwether_options options = {}) {
    options.size = sizeof options;
    bellwether_policy *handle = nullptr;
    check(api().policy_open(folder.c_str(), &options, &handle));
    handle_.reset(handle);
  }

  void swap(const std::string &folder) { check(api().policy_swap(handle_.get(), folder.c_str())); }
  void roll_back() { check(api().policy_roll_back(handle_.get())); }

  bellwether_status status() const {
    bellwether_status status = {};
    status.size = sizeof status;
    check(api().policy_status(handle_.get(), &status));
    return status;
  }

  std::string action_name(std::uint32_t action) const {
    const char *name = api().policy_action_name(handle_.get(), action);
    return name ? name : "";
  }

  Decider decider() const {
    const std::size_t actions = status().actions;
    bellwether_decider *handle = nullptr;
    check(api().decider_create(handle_.get(), &handle));
    return Decider(handle, actions);
  }

 private:
  std::unique_ptr<bellwether_policy, Close> handle_;
};

}  // namespace bellwether
